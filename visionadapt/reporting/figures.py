"""The figures of a report, section by section: each function turns a run's facts into what a template shows."""

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
from visionadapt.reporting.ledger_summary import RowFacts
from visionadapt.reporting.run_contents import Predictions, RunFacts
from visionadapt.tasks import ConfusionMatrix
from visionadapt.training.epochs import words

MOST_NUMBERED = 20
"""A confusion matrix of up to so many classes is a table of numbers, a larger one a picture."""
MOST_CLASSES = 200
MOST_CONFUSIONS = 12
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Shares at which a cell of the confusion matrix takes the next colour."""
_FIGURES = {
    "mean_average_precision": ("mean average precision", "mean over the classes of the area below precision by recall"),
    "balanced_accuracy": ("balanced accuracy", "mean share of right answers over the classes"),
    "macro_f1": ("macro-F1", "mean over the classes of recall and precision in one figure"),
    "micro_f1": ("micro-F1", "recall and precision over all classes' answers in one figure"),
    "exact_matches": ("exact matches", "share of pictures of which every class is right"),
    "top_3": ("top-3 accuracy", "right class among the three likeliest"),
    "top_5": ("top-5 accuracy", "right class among the five likeliest"),
    "log_loss": ("log-loss", "mean of −log p of the true class; lower is better"),
}


@dataclass(frozen=True)
class Answer:
    """How good the classifier is, beside what it has to surpass.

    Attributes:
        accuracy: the share of right answers; `low` and `high` are its limits.
        right, pictures: how many were right of how many.
        rejected: how many validation rows could not be used.
        chart: the same beside the baselines.
    """

    accuracy: float
    low: float
    high: float
    right: int
    pictures: int
    rejected: int
    chart: charts.Rows


def answer(facts: RunFacts) -> Answer | None:
    """The headline; None where nothing was validated, or pictures have several classes."""
    evaluation = facts.evaluation
    if evaluation.get("accuracy") is None:
        return None
    pictures, accuracy = evaluation["pictures"], evaluation["accuracy"]
    low, high = evaluation["intervals"]["accuracy"]
    rows = [_baseline(name, facts.summary.get(key), pictures, style) for name, key, style in _BASELINES]
    rows.append(("this classifier", percent(accuracy), accuracy, low, high, "one"))
    return Answer(
        accuracy,
        low,
        high,
        round(accuracy * pictures),
        pictures,
        evaluation["rejected"],
        charts.shares("Accuracy on the validation pictures, with 95 % intervals", [row for row in rows if row]),
    )


_BASELINES = (
    ("always the commonest class", "majority_accuracy", "plain"),
    ("linear probe on the frozen features", "probe_accuracy", "two"),
)


def _baseline(
    name: str, accuracy: float | None, pictures: int, style: str
) -> tuple[str, str, float, float, float, str] | None:
    if accuracy is None:
        return None
    low, high = intervals.share(round(accuracy * pictures), pictures)
    return (name, percent(accuracy), accuracy, low, high, style)


def further_figures(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Name, meaning, value and interval of each figure of the validation but the accuracy."""
    for key, (name, meaning) in _FIGURES.items():
        if evaluation.get(key) is not None:
            show = decimal if key == "log_loss" else percent
            limits = evaluation["intervals"].get(key)
            yield name, meaning, show(evaluation[key]), f"{show(limits[0])} to {show(limits[1])}" if limits else ""


def curves(facts: RunFacts) -> list[charts.Chart]:
    """Losses, and every validation figure, epoch by epoch."""
    if not facts.metrics:
        return []
    chosen = int(facts.summary.get("best_epoch", 0))
    losses = [
        ("training", "one", _column(facts, "train_loss")),
        ("validation", "two", _column(facts, "val_loss")),
    ]
    names = [name for name in facts.metrics[-1] if name.startswith("val_") and name != "val_loss"]
    columns = {words(name).removeprefix("val ").capitalize(): _column(facts, name) for name in names}
    return [
        charts.curves("Loss", losses, chosen, share=False),
        *(
            charts.curves(name, [("validation", "two", values)], chosen, share=True)
            for name, values in columns.items()
            if any(map(math.isfinite, values))
        ),
    ]


def _column(facts: RunFacts, name: str) -> list[float]:
    return [math.nan if line.get(name) is None else float(line[name]) for line in facts.metrics]


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix: how many, and which colour (0 for none to 6)."""

    row: int
    column: int
    count: int
    level: int


@dataclass(frozen=True)
class Confusions:
    """What was taken for what.

    Attributes:
        classes: names, rows and columns alike.
        cells: every cell of a numbered matrix by rows; of a drawn one, those with a count.
        numbered: whether the matrix is a table of numbers.
        pairs: the most frequent confusions: true class, taken for, count, share of the true class.
    """

    classes: tuple[str, ...]
    cells: tuple[Cell, ...]
    numbered: bool
    pairs: tuple[tuple[str, str, int, float], ...]


def confusions(facts: RunFacts) -> Confusions | None:
    """The confusion matrix; None without predictions."""
    if facts.predictions is None or not len(facts.predictions.truth):
        return None
    counts = _matrix(facts, facts.predictions).counts
    shares = counts / counts.sum(axis=1).clip(1)[:, None]
    numbered = len(counts) <= MOST_NUMBERED
    levels = np.where(counts > 0, np.searchsorted(LEVELS, shares, side="left") + 1, 0)
    where = np.ndindex(*counts.shape) if numbered else zip(*np.nonzero(counts), strict=True)
    cells = tuple(Cell(int(r), int(c), int(counts[r, c]), int(levels[r, c])) for r, c in where)
    return Confusions(facts.classes, cells, numbered, _pairs(facts.classes, counts, shares))


def _matrix(facts: RunFacts, predictions: Predictions) -> ConfusionMatrix:
    return ConfusionMatrix.of(predictions.truth.tolist(), predictions.predicted.tolist(), len(facts.classes))


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
    """One class: its number in the matrix, its pictures and its figures as texts."""

    number: int
    name: str
    training: int | None
    validation: int
    recall: str
    recall_interval: str
    precision: str
    f1: str


def class_rows(facts: RunFacts, rows: RowFacts | None) -> tuple[list[ClassRow], int]:
    """The classes, the weakest first, at most `MOST_CLASSES`; and how many there are."""
    per_class = facts.evaluation.get("per_class", {})
    found = [
        ClassRow(
            number,
            name,
            rows.training_pictures[name] if rows else None,
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
class CalibrationFacts:
    """How far a probability can be believed, before and after temperature scaling.

    Attributes:
        temperature: what the logits are divided by.
        charts: before and after.
        rows: name, before, after.
        band: what a perfectly calibrated classifier shows by chance, as text.
        wanted, threshold, answered, precision, precision_interval: of abstaining; `reachable` says whether any
            threshold gives the wanted precision.
    """

    temperature: float
    charts: tuple[charts.Chart, charts.Chart]
    rows: tuple[tuple[str, str, str], ...]
    band: str
    wanted: str
    threshold: str
    reachable: bool
    answered: int
    pictures: int
    precision: str
    precision_interval: str


def calibration(facts: RunFacts) -> CalibrationFacts | None:
    """The calibration; None where a run has none."""
    found, predictions = facts.evaluation.get("calibration"), facts.predictions
    if not found or not found.get("pictures") or predictions is None or not len(predictions.truth):
        return None
    raw = probabilities.tempered(predictions.probabilities, found["temperature"]).max(axis=1)
    return CalibrationFacts(
        found["temperature"],
        (
            charts.reliability("Before calibration", _bins(raw, predictions.correct), "two"),
            charts.reliability("After calibration", _bins(predictions.confidence, predictions.correct), "one"),
        ),
        (
            ("log-loss", decimal(found["log_loss_before"]), decimal(facts.evaluation["log_loss"])),
            (
                "calibration error",
                percent(found["calibration_error_before"]),
                percent(facts.evaluation["calibration_error"]),
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
    """Three digits behind the point; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _interval(limits: Sequence[float] | None) -> str:
    return "" if limits is None else f"{percent(limits[0])} to {percent(limits[1])}"


def _short_interval(limits: Sequence[float] | None) -> str:
    return "" if limits is None else f"{100 * limits[0]:.0f}–{percent(limits[1], 0)}"
