"""Measure a trained classifier on labelled pictures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionadapt.errors import RunError
from visionadapt.prediction import Prediction, Predictor
from visionadapt.records import Manifest, natural_key
from visionadapt.storage import write_bytes, write_json, write_text
from visionadapt.tables import table_text
from visionadapt.tasks import ConfusionMatrix


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        classes: of the classifier, in the order of the matrix.
        matrix: over the pictures that could be used and whose class the classifier knows.
        predictions: of every row, in order.
        labels: the true class of every row; None where it has none.
        unknown: how many pictures there are of each class that the classifier does not know; they are in no figure.
        trained_on: how many pictures the classifier was trained on: they flatter every figure.
    """

    classes: tuple[str, ...]
    matrix: ConfusionMatrix
    predictions: tuple[Prediction, ...]
    labels: tuple[str | None, ...]
    unknown: dict[str, int]
    trained_on: int = 0

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Key and reason of each row that could not be used."""
        return [(row.file, row.problem) for row in self.predictions if row.problem is not None]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the classifier that have no usable picture here."""
        return tuple(name for name, count in zip(self.classes, self.matrix.support, strict=True) if count == 0)

    def figures(self) -> dict[str, Any]:
        """Every figure as plain data; what has no denominator is None."""
        matrix = self.matrix
        columns = {"recall": matrix.recall, "precision": matrix.precision, "f1": matrix.f1}
        return {
            "accuracy": _number(matrix.accuracy),
            "balanced_accuracy": _number(matrix.balanced_accuracy),
            "pictures": int(matrix.counts.sum()),
            "rejected": len(self.rejected),
            "trained_on": self.trained_on,
            "absent_classes": list(self.absent),
            "unknown_classes": self.unknown,
            "per_class": {
                name: {
                    "support": int(matrix.support[row]),
                    **{figure: _number(float(values[row])) for figure, values in columns.items()},
                }
                for row, name in enumerate(self.classes)
            },
        }


def evaluate(predictor: Predictor, manifest: Manifest, workers: int = 0, trained: Container[str] = ()) -> Evaluation:
    """Predict every row of a labelled manifest and count; `trained` holds the SHA-256 of the training files."""
    index = {name: place for place, name in enumerate(predictor.classes)}
    predictions: list[Prediction] = []
    labels: list[str | None] = []
    pairs: list[tuple[int, int]] = []
    unknown: dict[str, int] = {}
    trained_on = 0
    for prediction, finding in predictor.stream(manifest, workers):
        label = manifest[finding.index].label
        predictions.append(prediction)
        labels.append(label)
        trained_on += finding.sha256 in trained
        if label is not None and label not in index:
            unknown[label] = unknown.get(label, 0) + 1
        elif label is not None and prediction.label is not None:
            pairs.append((index[label], index[prediction.label]))
    matrix = ConfusionMatrix.of((pair[0] for pair in pairs), (pair[1] for pair in pairs), len(index))
    ordered = dict(sorted(unknown.items(), key=lambda item: natural_key(item[0])))
    return Evaluation(predictor.classes, matrix, tuple(predictions), tuple(labels), ordered, trained_on)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json`, the tables as CSV, and the confusion matrix as a picture too.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
    figures, classes = evaluation.figures(), evaluation.classes
    write_json(folder / "evaluation.json", figures)
    columns = ("support", "recall", "precision", "f1")
    rows = [(name, *(_cell(values[column]) for column in columns)) for name, values in figures["per_class"].items()]
    write_text(folder / "per_class.csv", table_text(("class", *columns), rows))
    counts = evaluation.matrix.counts.tolist()
    matrix = [(name, *row) for name, row in zip(classes, counts, strict=True)]
    write_text(folder / "confusion_matrix.csv", table_text(("true class", *classes), matrix))
    write_bytes(folder / "confusion_matrix.png", _picture(classes, evaluation.matrix))
    write_text(
        folder / "predictions.csv", table_text(("file", "true class", "label", "probability"), _rows(evaluation))
    )
    write_text(folder / "rejected.csv", table_text(("file", "reason"), evaluation.rejected))


def _rows(evaluation: Evaluation) -> list[tuple[str | float, ...]]:
    return [
        (row.file, label or "", row.label or "", row.probability if row.label else "")
        for row, label in zip(evaluation.predictions, evaluation.labels, strict=True)
    ]


def _picture(classes: Sequence[str], matrix: ConfusionMatrix) -> bytes:
    """The confusion matrix as a PNG; each row is coloured by its share."""
    from matplotlib.figure import Figure

    side = min(max(4.0, 0.5 * len(classes) + 2), 40.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix.counts / matrix.support.clip(1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_shortened(name).replace("$", r"\$") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= 40:
        for row, line in enumerate(matrix.counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count) if count else "", ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; the tables have the name
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _shortened(name: str) -> str:
    """A name of at most 40 characters, so that the matrix keeps its place in the picture."""
    return name if len(name) <= 40 else f"{name[:39]}…"


def _number(value: float) -> float | None:
    return None if value != value else value


def _cell(value: float | int | None) -> float | int | str:
    return "" if value is None else value
