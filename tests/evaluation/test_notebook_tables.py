"""What notebooks show of results: their figures, and nothing that a name could smuggle in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from IPython.core.formatters import PNGFormatter
from nbclient import NotebookClient
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

import visionadapt as va
from visionadapt.errors import RunError, UsageError
from visionadapt.evaluation.multilabel import MultiLabelEvaluation
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.prediction.prediction import Prediction

from .. import forked
from ..conftest import SMALL_BACKBONE

HOSTILE = "<script>alert(1)</script>\u202e"


def test_a_prediction_shows_its_classes_and_escapes_names() -> None:
    shown = Prediction(HOSTILE, "cat", 0.75, (0.25, 0.75), classes=("dog", "cat"), labels=("cat",))._repr_html_()
    assert "<script" not in shown and "\u202e" not in shown
    assert shown.index("cat") < shown.index("dog") and "75.0" in shown
    assert "is empty" in Prediction("a.jpg", problem="is empty")._repr_html_()


def test_an_evaluation_shows_its_accuracy_with_the_interval() -> None:
    rows = tuple(
        Prediction(f"{row}", name, 0.9, (0.9, 0.1) if name == "a" else (0.1, 0.9), classes=("a", "b"), labels=(name,))
        for row, name in enumerate("aabb")
    )
    shown = SingleLabelEvaluation(("a", "b"), rows, (("a",), ("a",), ("b",), ("a",)))._repr_html_()
    assert "accuracy" in shown and "75.0 %" in shown and "4 of 4 rows" in shown


def test_an_audit_shows_how_many_findings_there_are(tinted_folder: Callable[..., Path]) -> None:
    data = tinted_folder(count=6)
    (data / "blood" / "copy.png").write_bytes((data / "grass" / "0.png").read_bytes())
    audit = va.audit(data, backbone=SMALL_BACKBONE, weights="none", image_size=64, workers=0)
    shown = audit._repr_html_()
    assert audit.counts and all(f"{count} (" in shown for count in audit.counts.values())


def test_plots_show_what_was_evaluated(tinted_folder: Callable[..., Path]) -> None:
    data = tinted_folder(count=3)
    rows = tuple(
        Prediction(f"{name}/{row}.png", label, 0.8, (0.8, 0.2) if label == "blood" else (0.2, 0.8), labels=(label,))
        for name, labels in (("blood", ("blood", "blood", "grass")), ("grass", ("grass", "grass", "grass")))
        for row, label in enumerate(labels)
    )
    found = SingleLabelEvaluation(("blood", "grass"), rows, (("blood",),) * 3 + (("grass",),) * 3)
    matrix = found.plot().axes[0]
    assert [text.get_text() for text in matrix.texts] == ["2", "1", "", "3"]
    assert PNGFormatter()(found.plot()).startswith(b"\x89PNG")  # a notebook shows it, without pyplot
    reliability = found.plot("reliability").axes[0]
    (points,) = [line for line in reliability.lines if line.get_marker() == "o"]
    assert np.asarray(points.get_xydata()).tolist() == [[pytest.approx(0.8), pytest.approx(5 / 6)]]
    losses = found.plot("losses", data, most=2).axes
    assert "grass" in losses[0].get_title() and "labelled blood" in losses[0].get_title()
    with pytest.raises(UsageError, match="rows"):
        found.plot("losses")
    with pytest.raises(UsageError, match="confusion, reliability, losses"):
        found.plot("nothing")


def test_plots_show_what_was_evaluated_where_images_have_several_classes(tinted_folder: Callable[..., Path]) -> None:
    data, classes = tinted_folder(count=2), ("blood", "grass", "sky")
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.1, 0.1], [0.6, 0.9, 0.2], [0.2, 0.7, 0.1]])
    labels = (("blood",), ("blood", "grass"), ("grass",), ("grass",))
    truth = np.array([[name in own for name in classes] for own in labels])
    rows = tuple(
        Prediction(f"{name}/{row % 2}.png", "blood", 0.5, tuple(scores[row]), labels=_above_half(classes, scores[row]))
        for row, name in enumerate(("blood", "blood", "grass", "grass"))
    )
    found = MultiLabelEvaluation(classes, rows, labels)
    areas = [average_precision_score(truth[:, c], scores[:, c]) for c in range(2)]
    chart = found.plot()
    assert [text.get_text() for text in chart.axes[0].get_yticklabels()][::-1] == ["grass", "blood", "sky"]
    widths = [bar.get_width() for bar in chart.axes[0].containers[0]][::-1]
    assert widths[:2] == pytest.approx(sorted(areas)) and np.isnan(widths[2])
    rates = f1_score(truth, scores >= 0.5, average=None, zero_division=np.nan)
    assert [bar.get_width() for bar in chart.axes[0].containers[1]][::-1][:2] == pytest.approx(rates[[1, 0]])
    lines = [np.asarray(line.get_xydata()) for line in found.plot("precision_recall").axes[0].lines]
    assert [float(np.diff(line[:, 0]) @ line[1:, 1]) for line in lines] == pytest.approx(sorted(areas))
    points = [line.get_xydata() for line in found.plot("reliability").axes[0].lines if line.get_marker() == "o"]
    assert np.asarray(points[0]).tolist() == [[pytest.approx(0.1), pytest.approx(1 / 4)]]  # of 4 such decisions
    worst = found.plot("losses", data, most=1).axes[0].get_title()
    assert worst == "blood 70 %\nlabelled blood 70 %, grass 10 %"  # −log 0.1 for the missed class


def _above_half(classes: Sequence[str], scores: NDArray[np.float64]) -> tuple[str, ...]:
    return tuple(name for name, score in zip(classes, scores, strict=True) if score >= 0.5)


@pytest.mark.slow
def test_training_shows_its_progress_and_its_epochs(
    tinted_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train, val = va.split(str(tinted_folder()))
    model = va.classifier(SMALL_BACKBONE, classes=train.classes, weights="none", adapter="lora(rank=2)", image_size=64)
    told: list[tuple[str, int, int]] = []
    settings: dict[str, Any] = {"epochs": 2, "workers": 0}
    prepare = va.preprocessing_for(model)
    epochs = list(va.fit(model, train, val, prepare, progress=lambda *what: told.append(what), **settings))
    assert [what for what, done, total in told if done == total][:2] == ["images of train", "images of val"]
    assert capsys.readouterr().err == ""
    assert f"{epochs[1].val_loss:.4f}" in epochs[1]._repr_html_() and "kept so far" in str(epochs[1])
    assert [len(line.get_xdata()) for line in va.curves(epochs).axes[0].lines] == [2, 2]
    list(va.fit(model, train, val, prepare, progress=True, **settings))
    assert "images of train" in capsys.readouterr().err
    with pytest.raises(RunError, match="no epochs"):
        va.curves([])


@pytest.mark.slow
def test_a_training_run_in_a_notebook_is_one_output(
    tinted_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    forked.run_kernels(monkeypatch)
    options = f"backbone={SMALL_BACKBONE!r}, weights='none', image_size=64, workers=0, epochs=3"
    code = f"import visionadapt as va; run = va.train({str(tinted_folder())!r}, out='run', {options})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = [output for output in notebook.cells[0].outputs if output.get("name") != "stderr"]
    html = shown["data"]["text/html"]
    assert html.count("<tr>") > 3 and "kept" in html and "validation accuracy" in html
