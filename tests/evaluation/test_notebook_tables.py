"""What notebooks show of results: their figures, and nothing that a name could smuggle in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import visionadapt as va
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.prediction.prediction import Prediction

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
    assert "accuracy" in shown and "0.750" in shown and "4 of 4 rows" in shown


def test_an_audit_shows_how_many_findings_there_are(tinted_folder: Callable[..., Path]) -> None:
    data = tinted_folder(count=6)
    (data / "blood" / "copy.png").write_bytes((data / "grass" / "0.png").read_bytes())
    audit = va.audit(data, backbone=SMALL_BACKBONE, weights="none", image_size=64, workers=0)
    shown = audit._repr_html_()
    assert audit.counts and all(f"{count} (" in shown for count in audit.counts.values())
