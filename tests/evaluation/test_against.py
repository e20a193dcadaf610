"""Two classifiers on the same images: what they share, how far they differ, and the page and tables that tell it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from tests.conftest import SMALL_BACKBONE
from visionadapt.console.summaries import comparison_rows
from visionadapt.errors import UsageError
from visionadapt.evaluation.against import compare
from visionadapt.evaluation.multilabel import MultiLabelEvaluation
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.prediction.prediction import Prediction

Command = Callable[..., tuple[int, str]]
CLASSES = ("a", "b")


def single(labels: str, truth: str, classes: tuple[str, ...] = CLASSES, broken: int = -1) -> SingleLabelEvaluation:
    rows = tuple(
        Prediction(f"{row}.jpg", problem="is empty")
        if row == broken
        else Prediction(f"{row}.jpg", label, 0.75, (0.75, 0.25), labels=(label,), classes=classes)
        for row, label in enumerate(labels)
    )
    return SingleLabelEvaluation(classes, rows, tuple((name,) for name in truth))


def test_only_images_that_count_for_both_are_compared() -> None:
    """Of 8 images one is broken for the second classifier, and one of a class that it does not know."""
    truth = "aaabbbac"
    first = single("aaabbbba", truth, ("a", "b", "c"))
    second = single("abbbbaaa", truth, broken=0)
    found = compare(first, second, ("one", "two"))
    assert found.rows == (1, 2, 3, 4, 5, 6)
    assert (found.only_first, found.only_second) == ((1, 2, 5), (6,))
    figures = found.figures()
    assert figures["accuracy"] == pytest.approx([5 / 6, 3 / 6]) and figures["difference"] == pytest.approx(2 / 6)
    assert figures["mcnemar"] == pytest.approx(stats.binomtest(1, 4).pvalue)
    assert list(found.differing()) == [1, 2, 5, 6]


def test_images_of_several_classes_need_every_label_right() -> None:
    def several(*labels: str) -> MultiLabelEvaluation:
        rows = tuple(
            Prediction(f"{row}", "a", 0.9, (0.9, 0.1), labels=tuple(own), classes=CLASSES)
            for row, own in enumerate(labels)
        )
        return MultiLabelEvaluation(CLASSES, rows, (("a",), ("a", "b"), ()))

    found = compare(several("a", "a", ""), several("ab", "ba", ""), ("one", "two"))
    assert (found.only_first, found.only_second, found.accuracies) == ((0,), (1,), (2 / 3, 2 / 3))
    assert "with every label right" in " ".join(comparison_rows(found).values())  # no accuracy, as of single labels
    same = single("aab", "aab")
    assert "every label" not in " ".join(comparison_rows(compare(same, same, ("one", "two"))).values())


def test_other_images_or_other_classes_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="same task and images"):
        compare(single("ab", "ab"), single("ab", "ba"), ("one", "two"))
    with pytest.raises(UsageError, match="same classes"):
        compare(single("ab", "ab"), single("cd", "ab", ("c", "d")), ("one", "two"))


@pytest.mark.slow
def test_the_command_writes_a_page_and_tables(
    tinted_folder: Callable[..., Path], tmp_path: Path, visionadapt: Command
) -> None:
    data, runs = tinted_folder(), [tmp_path / "first", tmp_path / "second"]
    for seed, run in enumerate(runs):
        options = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--adapter", "none", "--seed", str(seed))
        code, told = visionadapt("train", "--data", data, "--out", run, "--workers", "0", *options)
        assert code == 0, told
    code, told = visionadapt("evaluate", runs[0], "--data", data, "--against", runs[1], "--workers", "0")
    assert code == 0 and "second" in told, told
    folder = runs[0] / "evaluation"
    found = json.loads((folder / "comparison.json").read_text())
    assert found["runs"] == ["first", "second"] and found["pictures"] == 20
    assert json.loads((folder / "evaluation.json").read_text())["accuracy"] == found["accuracy"][0]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Compared with second" in page and "trained on" in page and "<script" not in page
    with (folder / "differences.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["label"] != row["other label"] for row in csv.DictReader(file))
    assert visionadapt("evaluate", runs[0], "--data", data, "--workers", "0")[0] == 0
    assert not (folder / "comparison.json").exists()
    assert "Compared with" not in (folder / "report.html").read_text(encoding="utf-8")
