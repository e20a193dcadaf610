"""Both evaluations against scikit-learn and by hand, on predictions made up here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

import visionadapt as va
from visionadapt.evaluation.evaluate import EVALUATIONS
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.multilabel import MultiLabelEvaluation
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.evaluation.writing import write_evaluation
from visionadapt.metrics import intervals
from visionadapt.prediction.calibration import Calibration
from visionadapt.tasks import TASKS, plain_task

CLASSES = ("a", "b", "c", "d")
RANDOM = np.random.default_rng(0)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), 40)
PROBABILITIES[:, 3] *= 1e-3
TRUTH = [CLASSES[place] for place in RANDOM.integers(0, 3, 40)]


def single(**changes: Any) -> SingleLabelEvaluation:
    """40 predictions; then a rejected row, one without a label and one of an unknown class."""
    rows = [
        va.Prediction(f"{row}.png", CLASSES[int(each.argmax())], float(each.max()), tuple(each), labels=())
        for row, each in enumerate(PROBABILITIES)
    ]
    rows += [va.Prediction("broken.png", problem="is empty"), *rows[:2]]
    truths = [*((label,) for label in TRUTH), ("a",), (), ("strange",)]
    return SingleLabelEvaluation(CLASSES, tuple(rows), tuple(truths), **changes)


def several() -> MultiLabelEvaluation:
    """The same probabilities as independent ones, thresholds of 0.3, an unknown class, and a rejected row."""
    rows = [
        va.Prediction(f"{row}.png", "a", 0.5, tuple(each), labels=tuple(np.array(CLASSES)[each >= 0.3].tolist()))
        for row, each in enumerate(PROBABILITIES)
    ]
    rows.append(va.Prediction("broken.png", problem="is empty"))
    truths = [
        (label, "strange") if row % 4 == 0 else (label,) if row % 4 < 3 else () for row, label in enumerate(TRUTH)
    ]
    calibration = Calibration(task="multilabel", thresholds=(0.3,) * 4)
    return MultiLabelEvaluation(CLASSES, tuple(rows), (*truths, ("a",)), calibration)


def test_single_labels_are_scikit_learn_s() -> None:
    evaluation = single()
    predicted = [CLASSES[place] for place in PROBABILITIES.argmax(1)]
    found = evaluation.figures()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(TRUTH, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(TRUTH, predicted))
    known = sorted({*TRUTH, *predicted})
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(TRUTH, predicted, labels=known, average="macro"))
    shares = np.array([CLASSES.index(label) for label in TRUTH])
    assert found["log_loss"] == pytest.approx(-np.log(PROBABILITIES[np.arange(40), shares]).mean())
    expected = metrics.precision_recall_fscore_support(TRUTH, predicted, labels=CLASSES[:3])
    for place, name in enumerate(CLASSES[:3]):
        own = found["per_class"][name]
        values = [own["precision"], own["recall"], own["f1"], own["support"]]
        assert values == pytest.approx([column[place] for column in expected])
        low, high = intervals.share(round(own["recall"] * own["support"]), own["support"])
        assert own["intervals"]["recall"] == pytest.approx([low, high])
    assert found["per_class"]["d"] == {
        "support": 0,
        "recall": None,
        "precision": None,
        "f1": None,
        "intervals": {"recall": None, "precision": None, "f1": None},
    }
    assert np.array_equal(evaluation.matrix.counts[:3, :3], metrics.confusion_matrix(TRUTH, predicted))
    counts = {name: found[name] for name in ("pictures", "rows", "rejected", "unlabelled", "trained_on")}
    assert counts == {"pictures": 40, "rows": 43, "rejected": 1, "unlabelled": 1, "trained_on": 0}
    assert (found["absent_classes"], found["unknown_classes"]) == (["d"], {"strange": 1})


def test_several_labels_are_scikit_learn_s() -> None:
    evaluation = several()
    found = evaluation.figures()
    truth = np.array([[name in own for name in CLASSES] for own in evaluation.true_classes[:40]])
    decided = PROBABILITIES >= 0.3
    assert np.array_equal(evaluation.truth, truth) and np.array_equal(evaluation.found, decided)
    expected = metrics.average_precision_score(truth[:, :3], PROBABILITIES[:, :3], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(truth, decided, average="micro"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth[:, :3], decided[:, :3], average="macro"))
    assert found["exact_matches"] == pytest.approx(metrics.accuracy_score(truth, decided))
    for place, name in enumerate(CLASSES[:3]):
        own = found["per_class"][name]
        assert (own["support"], own["found"]) == (truth[:, place].sum(), decided[:, place].sum())
        assert own["recall"] == pytest.approx(metrics.recall_score(truth[:, place], decided[:, place]))
        assert own["threshold"] == 0.3
    assert (found["pictures"], found["rows"], found["rejected"], found["unlabelled"]) == (40, 41, 1, 10)
    assert (found["absent_classes"], found["unknown_classes"]) == (["d"], {"strange": 10})


@pytest.mark.parametrize("make", [single, several])
def test_it_is_shown_in_one_short_line_and_noted(make: Any) -> None:
    evaluation: Evaluation = make()
    name, value = evaluation.headline
    assert value == evaluation.figures()[name]
    shown = repr(evaluation)
    assert len(shown) <= 120 and "\n" not in shown
    assert f"{name.replace('_', ' ')} {100 * value:.1f} %" in shown
    assert f"40 of {len(evaluation.predictions)} rows" in shown
    notes = list(evaluation.notes())
    assert ["'strange'" in note for note in notes] == [True, False, False]
    assert " rows is rejected: 1 × " in notes[2]
    assert "no usable image of 1 class: d" in notes[1]


def test_what_is_written(tmp_path: Path) -> None:
    slices = {"camera": ("left", *[None] * 42)}
    write_evaluation(tmp_path / "one", single(slices=slices))
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        *("evaluation.json", "per_class.csv", "confusion_matrix.csv", "confusion_matrix.png", "slices.csv"),
        *("predictions.csv", "rejected.csv"),
    }
    figures = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert [(row["value"], row["pictures"]) for row in figures["slices"]["camera"]] == [("left", 1), (None, 39)]
    with (tmp_path / "one" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["true_class"] for row in rows] == [*TRUTH, "a", "", "strange"]
    write_evaluation(tmp_path / "one", single())
    assert not (tmp_path / "one" / "slices.csv").exists(), "it told of another evaluation"
    write_evaluation(tmp_path / "many", several())
    assert {path.name for path in (tmp_path / "many").iterdir()} == {
        *("evaluation.json", "per_class.csv", "predictions.csv", "rejected.csv")
    }
    header = (tmp_path / "many" / "per_class.csv").read_text().splitlines()[0]
    assert header.startswith("class,support,found,threshold,average_precision,f1,f1 low,f1 high,precision,")


def test_every_task_has_its_evaluation() -> None:
    assert EVALUATIONS.keys() == TASKS.keys()
    for name, kind in EVALUATIONS.items():
        assert kind.task == plain_task(name).name == name
