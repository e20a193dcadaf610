"""Figures of results for notebooks: curves, confusion matrix, classes, reliability and the images of highest loss."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.errors import UsageError
from visionadapt.metrics import intervals, multilabel, probabilities
from visionadapt.system.text import percent
from visionadapt.tasks import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

_LONGEST = 40
_NUMBERED = 40
_CURVES = 8


def curves(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the losses, and every validation metric, of epochs as `Epoch.metrics` gives them."""
    scores = [name for name in epochs[-1] if name.startswith("val_") and name != "val_loss"]
    figure, axes = _figure(1 + bool(scores))
    numbers = [line["epoch"] for line in epochs]
    for axis, names in zip(axes, (["train_loss", "val_loss"], scores), strict=False):
        for name in names:
            values = [float("nan") if line.get(name) is None else float(line[name]) for line in epochs]
            axis.plot(numbers, values, marker="o", markersize=3, label=name.replace("_", " "))
        axis.set_xlabel("epoch")
        axis.legend()
    if scores:
        axes[1].set_ylim(top=1.0)
    return figure


def confusion_matrix(classes: Sequence[str], matrix: ConfusionMatrix) -> Figure:
    """Draw a confusion matrix; each row is coloured by its shares."""
    side = min(max(4.0, 0.5 * len(classes) + 2), 40.0)
    figure = _empty(side, side)
    axes = figure.subplots()
    shares = matrix.counts / matrix.support.clip(1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in classes]  # the matrix needs room
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= _NUMBERED:
        for row, line in enumerate(matrix.counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count) if count else "", ha="center", va="center", color=colour)
    return figure


def class_bars(classes: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draw metrics [C] of each class as bars, the class that is lowest in the first one on top, at most 40 classes."""
    first = np.nan_to_num(next(iter(columns.values())), nan=np.inf)
    shown = np.argsort(first, kind="stable")[:_NUMBERED][::-1]
    figure = _empty(7, 0.45 * len(shown) + 1.2)
    axes, height = figure.subplots(), 0.8 / len(columns)
    for place, (name, values) in enumerate(columns.items()):
        axes.barh(np.arange(len(shown)) + 0.4 - (place + 0.5) * height, values[shown], height, label=name)
    axes.set_yticks(range(len(shown)), [_short(classes[row]) for row in shown])
    axes.set(xlim=(0, 1), ylim=(-0.6, len(shown) - 0.4))
    axes.grid(axis="x", alpha=0.4)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=len(columns), frameon=False)
    return figure


def precision_recall(classes: Sequence[str], scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> Figure:
    """Plot precision against recall of each class, [N, C] and [N, C]; of many, of those with the lowest area."""
    areas = multilabel.average_precision(scores, truth)
    known = [int(row) for row in np.argsort(areas, kind="stable") if areas[row] == areas[row]][:_CURVES]
    figure, (axis,) = _figure(1)
    for row in known:
        precision, recall = multilabel.precision_recall(scores[:, row], truth[:, row])
        label = f"{_short(classes[row])} ({percent(areas[row], 0)})"
        axis.step([0, *recall], [precision[0], *precision], where="pre", label=label)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside right upper", title="average precision", frameon=False)
    figure.set_size_inches(7.5, 4)
    return figure


def reliability(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    labels: tuple[str, str] = ("predicted probability", "accuracy"),
) -> Figure:
    """Plot how often predictions are right against their probability, both [N], with 95 % intervals."""
    figure, (axis,) = _figure(1)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
    bins = probabilities.bin_of(confidence)
    for place in np.unique(bins):
        inside = bins == place
        hits, count = int(correct[inside].sum()), int(inside.sum())
        share, (low, high) = hits / count, intervals.share(hits, count)
        axis.errorbar(confidence[inside].mean(), share, [[share - low], [high - share]], fmt="o", color="tab:blue")
    axis.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1))
    return figure


def images(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Figure:
    """Show images below their titles, four in a row."""
    columns, rows = min(4, len(pictures)), -(-len(pictures) // 4)
    figure = _empty(3 * columns, 3.4 * rows)
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if place < len(pictures):
            axis.imshow(pictures[place])
            axis.set_title(titles[place].replace("$", r"\$"), fontsize=9)
    return figure


@contextmanager
def any_script() -> Iterator[None]:
    """Draw without warnings about letters that matplotlib's font lacks: it draws boxes in their place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _short(name: str) -> str:
    return (name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…").replace("$", r"\$")


def _figure(count: int) -> tuple[Figure, list[Any]]:
    figure = _empty(5 * count, 3.6)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _empty(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches; raise UsageError if matplotlib is not installed."""
    try:
        from visionadapt.evaluation.shown_figure import ShownFigure
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'visionadapt[plots]'") from error
    return ShownFigure(figsize=(width, height), layout="constrained")
