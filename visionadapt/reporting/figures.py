"""Figures of the report, section by section: each function turns the contents of a run into what a template shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import visionadapt.reporting.svg_charts as charts
from visionadapt.html.pages import percent
from visionadapt.metrics import intervals, probabilities
from visionadapt.reporting.ledger_summary import LedgerSummary
from visionadapt.reporting.run_contents import RunContents, ValidationPredictions
from visionadapt.tasks import ConfusionMatrix
from visionadapt.training.epochs import words

MOST_NUMBERED = 20
"""Number of classes up to which the confusion matrix is a table of numbers; a larger one is drawn."""
MOST_CLASSES = 200
MOST_CONFUSIONS = 12
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Shares of the true class from which a cell of the confusion matrix gets the next colour."""
_METRICS = {
    "mean_average_precision": ("mean average precision", "mean area under the precision-recall curve over the classes"),
    "balanced_accuracy": ("balanced accuracy", "mean recall over the classes"),
    "macro_f1": ("macro-F1", "mean F1 over the classes"),
    "micro_f1": ("micro-F1", "F1 over the predictions for all classes"),
    "exact_matches": ("exact matches", "share of images with every class correct"),
    "top_3": ("top-3 accuracy", "true class among the three most probable"),
    "top_5": ("top-5 accuracy", "true class among the five most probable"),
    "log_loss": ("log-loss", "mean of −log p of the true class; lower is better"),
}


@dataclass(frozen=True)
class Headline:
    """Accuracy on the validation images, next to the baselines.

    Attributes:
        accuracy: in [0, 1]; `low` and `high` are its limits.
        correct, images: number of correct predictions, and of all.
        rejected: number of unusable validation rows.
        chart: accuracy next to the baselines.
    """

    accuracy: float
    low: float
    high: float
    correct: int
    images: int
    rejected: int
    chart: charts.ShareChart


def headline(run: RunContents) -> Headline | None:
    """Return the headline; None if nothing was validated, or images have several classes."""
    evaluation = run.evaluation
    if evaluation.get("accuracy") is None:
        return None
    images, accuracy = evaluation["pictures"], evaluation["accuracy"]
    low, high = evaluation["intervals"]["accuracy"]
    rows = [_baseline(name, run.summary.get(key), images, style) for name, key, style in _BASELINES]
    rows.append(("this classifier", percent(accuracy), accuracy, low, high, "one"))
    return Headline(
        accuracy,
        low,
        high,
        round(accuracy * images),
        images,
        evaluation["rejected"],
        charts.shares("Accuracy on the validation images, with 95 % intervals", [row for row in rows if row]),
    )


_BASELINES = (
    ("most frequent class", "majority_accuracy", "plain"),
    ("linear probe on the frozen features", "probe_accuracy", "two"),
)


def _baseline(
    name: str, accuracy: float | None, images: int, style: str
) -> tuple[str, str, float, float, float, str] | None:
    if accuracy is None:
        return None
    low, high = intervals.share(round(accuracy * images), images)
    return (name, percent(accuracy), accuracy, low, high, style)


def further_metrics(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, meaning, value and interval of each validation metric but the accuracy."""
    for key, (name, meaning) in _METRICS.items():
        if evaluation.get(key) is not None:
            formatted = decimal if key == "log_loss" else percent
            limits = evaluation["intervals"].get(key)
            yield (
                name,
                meaning,
                formatted(evaluation[key]),
                f"{formatted(limits[0])} to {formatted(limits[1])}" if limits else "",
            )


def curves(run: RunContents) -> list[charts.Chart]:
    """Plot losses and every validation metric by epoch."""
    if not run.metrics:
        return []
    chosen = int(run.summary.get("best_epoch", 0))
    losses = [
        ("training", "one", _column(run, "train_loss")),
        ("validation", "two", _column(run, "val_loss")),
    ]
    names = [name for name in run.metrics[-1] if name.startswith("val_") and name != "val_loss"]
    columns = {words(name).removeprefix("val ").capitalize(): _column(run, name) for name in names}
    return [
        charts.curves("Loss", losses, chosen, share=False),
        *(
            charts.curves(name, [("validation", "two", values)], chosen, share=True)
            for name, values in columns.items()
            if any(map(math.isfinite, values))
        ),
    ]


def _column(run: RunContents, name: str) -> list[float]:
    return [math.nan if line.get(name) is None else float(line[name]) for line in run.metrics]


@dataclass(frozen=True)
class MatrixCell:
    """A cell of a confusion matrix: its count, and its colour from 0 (none) to 6."""

    row: int
    column: int
    count: int
    level: int


@dataclass(frozen=True)
class Confusions:
    """Confusion matrix.

    Attributes:
        classes: names of rows and columns.
        cells: all cells of a numbered matrix, row by row; of a drawn one, those with a count.
        numbered: whether the matrix is a table of numbers.
        pairs: the most frequent confusions: true class, predicted class, count, share of the true class.
    """

    classes: tuple[str, ...]
    cells: tuple[MatrixCell, ...]
    numbered: bool
    pairs: tuple[tuple[str, str, int, float], ...]


def confusions(run: RunContents) -> Confusions | None:
    """Return the confusion matrix; None without predictions."""
    if run.predictions is None or not len(run.predictions.truth):
        return None
    counts = _matrix(run, run.predictions).counts
    shares = counts / counts.sum(axis=1).clip(1)[:, None]
    numbered = len(counts) <= MOST_NUMBERED
    levels = np.where(counts > 0, np.searchsorted(LEVELS, shares, side="left") + 1, 0)
    where = np.ndindex(*counts.shape) if numbered else zip(*np.nonzero(counts), strict=True)
    cells = tuple(MatrixCell(int(r), int(c), int(counts[r, c]), int(levels[r, c])) for r, c in where)
    return Confusions(run.classes, cells, numbered, _pairs(run.classes, counts, shares))


def _matrix(run: RunContents, predictions: ValidationPredictions) -> ConfusionMatrix:
    return ConfusionMatrix.of(predictions.truth.tolist(), predictions.predicted.tolist(), len(run.classes))


def _pairs(
    classes: Sequence[str], counts: NDArray[np.int64], shares: NDArray[np.float64]
) -> tuple[tuple[str, str, int, float], ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    places = [divmod(int(place), len(classes)) for place in order]
    return tuple((classes[r], classes[c], int(wrong[r, c]), float(shares[r, c])) for r, c in places if wrong[r, c])


@dataclass(frozen=True)
class ClassRow:
    """A class: its number in the matrix, its numbers of images, and its metrics as text."""

    number: int
    name: str
    training: int | None
    validation: int
    recall: str
    recall_interval: str
    precision: str
    f1: str


def class_rows(run: RunContents, ledger: LedgerSummary | None) -> tuple[list[ClassRow], int]:
    """Return at most `MOST_CLASSES` classes, the weakest first, and the number of all."""
    per_class = run.evaluation.get("per_class", {})
    found = [
        ClassRow(
            number,
            name,
            ledger.training_images[name] if ledger else None,
            values["support"],
            percent(values["recall"]),
            _short_interval(values["intervals"]["recall"]),
            percent(values["precision"]),
            percent(values["f1"]),
        )
        for number, (name, values) in enumerate(per_class.items(), 1)
        if "support" in values and "intervals" in values
    ]
    weakest = sorted(found, key=lambda row: _weakness(per_class[row.name]["f1"]))
    return weakest[:MOST_CLASSES], len(found)


def _weakness(f1: float | None) -> float:
    return 2.0 if f1 is None else f1


@dataclass(frozen=True)
class CalibrationFigures:
    """How reliable the probabilities are, before and after temperature scaling.

    Attributes:
        temperature: divisor of the logits.
        charts: reliability before and after.
        rows: name of a metric, its value before and after.
        band: calibration error of a perfectly calibrated classifier by chance, as text.
        target, threshold, answered, precision, precision_interval: of abstaining; `reachable` is whether any threshold
            reaches the target precision.
    """

    temperature: float
    charts: tuple[charts.Chart, charts.Chart]
    rows: tuple[tuple[str, str, str], ...]
    band: str
    target: str
    threshold: str
    reachable: bool
    answered: int
    images: int
    precision: str
    precision_interval: str


def calibration(run: RunContents) -> CalibrationFigures | None:
    """Return the figures of the calibration; None if the run has none."""
    found, predictions = run.evaluation.get("calibration"), run.predictions
    if not found or not found.get("pictures") or predictions is None or not len(predictions.truth):
        return None
    raw = probabilities.tempered(predictions.probabilities, found["temperature"]).max(axis=1)
    return CalibrationFigures(
        found["temperature"],
        (
            charts.reliability("Before calibration", _bins(raw, predictions.correct), "two"),
            charts.reliability("After calibration", _bins(predictions.confidence, predictions.correct), "one"),
        ),
        (
            ("log-loss", decimal(found["log_loss_before"]), decimal(run.evaluation["log_loss"])),
            (
                "calibration error",
                percent(found["calibration_error_before"]),
                percent(run.evaluation["calibration_error"]),
            ),
        ),
        _interval(found["calibrated_band"]),
        percent(found["wanted_precision"], 0),
        decimal(found["threshold"]),
        bool(found["reachable"]),
        found["answered"],
        len(predictions.truth),
        percent(found["precision"]),
        _interval(found["precision_interval"]),
    )


def _bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[tuple[float, float, float, float, int]]:
    bins = probabilities.bin_of(confidence)
    found = []
    for place in np.unique(bins):
        inside = bins == place
        hits, count = int(correct[inside].sum()), int(inside.sum())
        low, high = intervals.share(hits, count)
        found.append((float(confidence[inside].mean()), hits / count, low, high, count))
    return found


def decimal(value: float | None) -> str:
    """Format with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _interval(limits: Sequence[float] | None) -> str:
    return "" if limits is None else f"{percent(limits[0])} to {percent(limits[1])}"


def _short_interval(limits: Sequence[float] | None) -> str:
    return "" if limits is None else f"{100 * limits[0]:.0f}–{percent(limits[1], 0)}"
