"""`Evaluation`: predictions on labelled images and their metrics, as far as every task shares them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Record
from visionadapt.data.reasons import commonest
from visionadapt.errors import UsageError
from visionadapt.evaluation import plots
from visionadapt.evaluation.plotted_images import images_of
from visionadapt.html.notebook import table
from visionadapt.metrics import intervals
from visionadapt.metrics.counts import Counted
from visionadapt.metrics.words import value_of, words
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.prediction import Prediction
from visionadapt.sources.opening import RowsLike
from visionadapt.system.text import counted
from visionadapt.tasks import TaskName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cells = tuple[str | float | None, ...]
Table = tuple[tuple[str, ...], list[Cells]]
"""The header and the rows of a CSV file."""


@dataclass(frozen=True, repr=False)
class Evaluation(ABC):
    """The result of an evaluation.

    Attributes:
        classes: of the classifier, in the order of the logits.
        predictions: of every row, in order.
        true_classes: of every row; empty for a row without labels, and possibly unknown to the classifier.
        calibration: of the classifier.
        slices: by column, the value of every row; None where it has none.
        trained_on: how many of the images the classifier was trained on; they make every metric optimistic.
    """

    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    true_classes: tuple[tuple[str, ...], ...]
    calibration: Calibration = field(default_factory=Calibration)
    slices: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    trained_on: int = 0

    task: ClassVar[TaskName]
    rates: ClassVar[tuple[str, ...]]
    """Order of recall, precision and F1 in tables."""
    unknown_note: ClassVar[str]
    """How `count` images of an unknown class are treated."""
    plots: ClassVar[tuple[str, ...]]
    """What `plot` can draw, the default first."""

    def __repr__(self) -> str:
        name, value = self.headline
        rows = f"{len(self.counted)} of {len(self.predictions)} rows"
        return f"{type(self).__name__}({words(name)} {value_of(name, value)}, {rows})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the metrics with their 95 % intervals."""
        figures = self.figures()
        limits = figures["intervals"]
        rows = [("images", f"{len(self.counted):,} of {len(self.predictions):,} rows")]
        for name, value in figures.items():
            if isinstance(value, float):
                low, high = (value_of(name, limit) for limit in limits.get(name) or (None, None))
                within = f" (95 % interval {low} to {high})" if limits.get(name) else ""
                rows.append((words(name), f"{value_of(name, value)}{within}"))
        return table(type(self).__name__, rows)

    @property
    @abstractmethod
    def headline(self) -> tuple[str, float]:
        """Name and value of one metric that stands for all."""

    @property
    @abstractmethod
    def counts(self) -> Counted:
        """Hits, images and predictions of each class, over the counted rows."""

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """Indices of the rows that the metrics are computed on: those that are usable."""
        return tuple(place for place, row in enumerate(self.predictions) if row.problem is None)

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Key and reason of each row that could not be used."""
        return [(row.file, row.problem) for row in self.predictions if row.problem is not None]

    @cached_property
    def unknown(self) -> dict[str, int]:
        """How many images have each class that the classifier does not know."""
        known = set(self.classes)
        counts = Counter(label for own in self.true_classes for label in own if label not in known)
        return dict(sorted(counts.items(), key=lambda item: natural_key(item[0])))

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the classifier that no usable image has."""
        return tuple(name for name, count in zip(self.classes, self.counts.support, strict=True) if count == 0)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities of the counted rows: float64 [N, C]."""
        rows = [self.predictions[place].probabilities for place in self.counted]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes))

    def figures(self) -> dict[str, Any]:
        """Return every metric as plain data, with 95 % intervals under `intervals`; undefined ones are None.

        Proportions have Wilson's interval, the others those of `visionadapt.metrics.intervals`.
        """
        values, limits = self._overall()
        return {
            **{name: number(value) for name, value in values.items()},
            "intervals": {name: interval(pair) for name, pair in limits.items()},
            "pictures": len(self.counted),
            "rows": len(self.predictions),
            "rejected": len(self.rejected),
            "unlabelled": sum(not own for own in self.true_classes),
            "trained_on": self.trained_on,
            "absent_classes": list(self.absent),
            "unknown_classes": self.unknown,
            **self._further(),
            "per_class": self._per_class(),
        }

    def notes(self) -> Iterator[str]:
        """Yield what a reader of the metrics has to know, one line each."""
        if self.trained_on:
            were = "was" if self.trained_on == 1 else "were"
            yield f"{self.trained_on:,} of these images {were} trained on: the metrics are optimistic"
        for name, count in self.unknown.items():
            yield f"class {name!r} is unknown to the classifier: {self.unknown_note.format(count=count)}"
        if self.absent:
            yield f"no usable image of {counted(len(self.absent), 'class', 'classes')}: {', '.join(self.absent)}"
        if self.rejected:
            reasons = commonest((Record(file), problem) for file, problem in self.rejected)
            are = "is" if len(self.rejected) == 1 else "are"
            yield f"{len(self.rejected):,} of {counted(len(self.predictions), 'row')} {are} rejected: {reasons}"

    def tables(self, figures: Mapping[str, Any]) -> dict[str, Table]:
        """Return the tables of `figures()` by file name."""
        names = tuple(self._columns())
        header = ("class", *names, *(column for name in self.rates for column in limits_of(name)))
        rows = [
            (name, *(values[column] for column in names), *self._rate_cells(values))
            for name, values in figures["per_class"].items()
        ]
        return {"per_class.csv": (header, rows)}

    def images(self) -> dict[str, bytes]:
        """Return charts as PNG by file name."""
        return {}

    def plot(self, what: str | None = None, rows: RowsLike | None = None, most: int = 8) -> Figure:
        """Plot the evaluation; `plots` of its class names what there is.

        Args:
            what: `confusion` (the default) where an image has one class, `classes` (the default) or `precision_recall`
                where it has several; `reliability` of the probabilities, or `losses`, the images of highest loss.
            rows: the images that were evaluated; needed for `losses`.
            most: how many images `losses` shows.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            UsageError: there is no such plot, no row to plot, or `losses` lacks the rows.
        """
        what = self.plots[0] if what is None else what
        if what not in self.plots:
            raise UsageError(f"plot({what!r}): give one of {', '.join(self.plots)}")
        if not self.counted:
            raise UsageError("no usable image of a known class: there is nothing to plot")
        if what != "losses":
            return self._plotted(what)
        if rows is None:
            raise UsageError("plot('losses') needs the images: give the rows that were evaluated")
        worst = [self.counted[place] for place in np.argsort(-self._losses(), kind="stable")[:most]]
        shown = images_of(rows, [self.predictions[row].file for row in worst])
        return plots.images(shown, [self._judged(row) for row in worst])

    @abstractmethod
    def _losses(self) -> NDArray[np.float64]:
        """Loss of each counted row: float64 [N]."""

    @abstractmethod
    def _plotted(self, what: str) -> Figure:
        """One of `plots` but `losses`."""

    @abstractmethod
    def _judged(self, row: int) -> str:
        """What is predicted for a row, and how it is labelled, in two short lines."""

    @abstractmethod
    def _overall(self) -> tuple[dict[str, float], dict[str, intervals.Interval]]:
        """Metrics over all classes, and the intervals of those that have one."""

    @abstractmethod
    def _columns(self) -> dict[str, Sequence[float] | NDArray[Any]]:
        """Metrics of each class [C] in addition to the rates."""

    def _further(self) -> dict[str, Any]:
        """Further entries of the metrics."""
        return {}

    def _per_class(self) -> dict[str, dict[str, Any]]:
        columns = {name: np.asarray(values).tolist() for name, values in self._columns().items()}
        columns |= {name: getattr(self.counts, name).tolist() for name in self.rates}
        limits = intervals.per_class(self.counts)
        return {
            name: {
                **{column: number(values[place]) for column, values in columns.items()},
                "intervals": {rate: interval((limits[rate][0][place], limits[rate][1][place])) for rate in self.rates},
            }
            for place, name in enumerate(self.classes)
        }

    def _rate_cells(self, values: Mapping[str, Any]) -> Iterator[float | None]:
        for name in self.rates:
            yield from (values[name], *(values["intervals"][name] or (None, None)))


def number(value: float) -> float | None:
    """Return the value; None where it is NaN."""
    return None if value != value else value


def interval(limits: intervals.Interval) -> list[float] | None:
    """Return both limits; None where they are NaN."""
    return None if limits[0] != limits[0] else [float(limits[0]), float(limits[1])]


def limits_of(name: str) -> tuple[str, str, str]:
    """Return the names of the columns for a metric and its limits."""
    return name, f"{name} low", f"{name} high"
