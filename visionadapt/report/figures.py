"""Figures of the report, section by section: each function turns the contents of a run into what a template shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import visionadapt.report.svg_charts as charts
from visionadapt.html.pages import decimal, interval, percent
from visionadapt.metrics import intervals, probabilities
from visionadapt.metrics.paired import mcnemar
from visionadapt.metrics.words import words
from visionadapt.report.run_contents import RunContents
from visionadapt.system.text import counted
from visionadapt.tasks import ConfusionMatrix

MOST_CONFUSED = 20
"""Classes of the confusion matrix; of more, it has those that are confused most."""
MOST_CONFUSIONS = 12
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Shares of the true class from which a cell of the confusion matrix gets the next colour."""
_BASELINES = (
    ("most frequent class", "majority_accuracy", "plain"),
    ("solved head on the frozen features", "probe_accuracy", "two"),
)
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


def accuracy_chart(run: RunContents, images: str = "the validation images") -> charts.ShareChart | None:
    """Plot the accuracy on some images next to the baselines; None if there is none, or images have several classes."""
    evaluation = run.evaluation
    if evaluation.get("accuracy") is None:
        return None
    rows, count = [], evaluation["pictures"]
    for name, key, style in _BASELINES:
        if (share := run.summary.get(key)) is not None and not (run.solved and key == "probe_accuracy"):
            rows.append((name, percent(share), share, *intervals.share(round(share * count), count), style))
    accuracy, limits = evaluation["accuracy"], evaluation["intervals"]["accuracy"]
    rows.append(("this classifier", percent(accuracy), accuracy, *limits, "one"))
    return charts.shares(f"Accuracy on {images}, with 95\N{NO-BREAK SPACE}% intervals", rows)


def against_probe(run: RunContents) -> str | None:
    """Tell in words how the classifier compares with the solved head; None where only the head was trained."""
    if run.options.get("adapter") == "none" or run.summary.get("probe_accuracy") is None:
        return None
    if run.summary.get("best_epoch") == 0:
        return (
            "Every epoch was worse than the solved head on the validation images, so the run saved the solved head. "
            "--adapter none gives the same in seconds."
        )
    if "only_probe" not in run.summary:
        return None
    gained, lost = int(run.summary["only_this_classifier"]), int(run.summary["only_probe"])
    chance = mcnemar(gained, lost)
    told = (
        "more than chance explains"
        if chance < 0.05
        else "which may be chance: --adapter none may do as well in seconds"
    )
    return (
        f"Compared with the solved head, {counted(gained, 'image')} {'is' if gained == 1 else 'are'} classified "
        f"correctly only by this classifier, "
        f"and {lost} only by that head (McNemar p = {chance:.2g}), {told}."
    )


def metrics(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, meaning, value and interval of each validation metric but the accuracy."""
    for key, (name, meaning) in _METRICS.items():
        if evaluation.get(key) is not None:
            formatted = decimal if key == "log_loss" else percent
            yield name, meaning, formatted(evaluation[key]), interval(evaluation["intervals"].get(key), formatted)


def curves(run: RunContents) -> list[charts.Chart]:
    """Plot losses and every validation metric by epoch."""
    if not run.metrics or run.solved:
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

    count: int
    level: int


@dataclass(frozen=True)
class Confusions:
    """Confusion matrix of the classes that are confused most, or of all.

    A matrix that is `reduced` has a last column for the predictions of all other classes. `pairs` are the most frequent
    confusions: true class, predicted class, count, share of the true class.
    """

    classes: tuple[str, ...]
    rows: tuple[tuple[MatrixCell, ...], ...]
    reduced: bool
    pairs: tuple[tuple[str, str, int, float], ...]


def confusions(run: RunContents) -> Confusions | None:
    """Return the confusion matrix; None without predictions."""
    found = run.predictions
    if found is None or not len(found.truth):
        return None
    counts = ConfusionMatrix.of(found.truth.tolist(), found.predicted.tolist(), len(run.classes)).counts
    support = counts.sum(axis=1).clip(1)[:, None]
    shown, reduced = _most_confused(counts), len(counts) > MOST_CONFUSED
    part = counts[np.ix_(shown, shown)]
    if reduced:
        part = np.column_stack([part, counts[shown].sum(axis=1) - part.sum(axis=1)])
    levels = np.where(part > 0, np.searchsorted(LEVELS, part / support[shown], side="left") + 1, 0)
    rows = tuple(tuple(map(MatrixCell, *line)) for line in zip(part.tolist(), levels.tolist(), strict=True))
    return Confusions(tuple(run.classes[place] for place in shown), rows, reduced, _pairs(run.classes, counts, support))


def _most_confused(counts: NDArray[np.int64]) -> list[int]:
    """Return the classes of the most frequent confusions, at most `MOST_CONFUSED`, in order; all if there are no more.

    A class and the one that it is taken for come together.
    """
    if len(counts) <= MOST_CONFUSED:
        return list(range(len(counts)))
    chosen: set[int] = set()
    for row, column in _confused_first(counts):
        if len(chosen | {row, column}) > MOST_CONFUSED:
            break
        chosen |= {row, column}
    return sorted(chosen)


def _confused_first(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return true and predicted class of every confusion, the most frequent first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _pairs(
    classes: Sequence[str], counts: NDArray[np.int64], support: NDArray[np.int64]
) -> tuple[tuple[str, str, int, float], ...]:
    found = _confused_first(counts)[:MOST_CONFUSIONS]
    return tuple((classes[r], classes[c], int(counts[r, c]), float(counts[r, c] / support[r, 0])) for r, c in found)


def weakest_classes(run: RunContents) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and metrics of each class, those with the lowest F1 first and those without one last."""
    rows = [(name, values) for name, values in run.evaluation.get("per_class", {}).items() if "intervals" in values]
    return sorted(rows, key=lambda row: 2.0 if row[1]["f1"] is None else row[1]["f1"])


def reliability_charts(run: RunContents) -> tuple[charts.Chart, charts.Chart] | None:
    """Plot the reliability of the probabilities before and after calibration; None if the run has no calibration."""
    calibration, predictions = run.evaluation.get("calibration") or {}, run.predictions
    found = calibration.get("fitted", calibration)  # runs of an earlier version have no inner level
    if not found.get("pictures") or predictions is None or not len(predictions.truth):
        return None
    raw = probabilities.tempered(predictions.probabilities, found["temperature"]).max(axis=1)
    return (
        charts.reliability("Before calibration", _bins(raw, predictions.correct), "two"),
        charts.reliability("After calibration", _bins(predictions.confidence, predictions.correct), "one"),
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
