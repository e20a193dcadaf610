"""Measure a classifier that says of each class whether a picture has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import natural_key
from visionadapt.metrics import intervals
from visionadapt.prediction.predictor import Prediction
from visionadapt.tasks import LabelCounts, average_precision, mean_average_precision


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What came of an evaluation where a picture has any number of classes.

    Attributes:
        classes: of the classifier, in the order of the columns.
        predictions: of every row, in order.
        labels: the true classes of every row, those included that the classifier does not know.
        thresholds: the probability from which on a picture has each class.
        trained_on: how many pictures the classifier was trained on: they flatter every figure.
    """

    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    labels: tuple[tuple[str, ...], ...]
    thresholds: tuple[float, ...]
    trained_on: int = 0

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Key and reason of each row that could not be used."""
        return [(row.file, row.problem) for row in self.predictions if row.problem is not None]

    @property
    def unknown(self) -> dict[str, int]:
        """How many pictures have each class that the classifier does not know; it is in no figure, they are."""
        counts = Counter(label for own in self.labels for label in own if label not in set(self.classes))
        return dict(sorted(counts.items(), key=lambda item: natural_key(item[0])))

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the classifier that no usable picture here has."""
        return tuple(name for name, count in zip(self.classes, self.counts.support, strict=True) if count == 0)

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """Which rows are in the figures: they could be used."""
        return tuple(place for place, row in enumerate(self.predictions) if row.problem is None)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of the counted rows: float64 [N, C]."""
        rows = [self.predictions[place].probabilities for place in self.counted]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes))

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which classes the counted rows have: bool [N, C]."""
        return self._has([self.labels[place] for place in self.counted])

    @cached_property
    def counts(self) -> LabelCounts:
        """How often each class was rightly found, wrongly found and missed."""
        return LabelCounts.of(self.truth, self._has([self.predictions[place].labels for place in self.counted]))

    def figures(self) -> dict[str, Any]:
        """Every figure as plain data, with a 95 % interval where one is known; what has no denominator is None."""
        same = (self.truth == self._has([self.predictions[place].labels for place in self.counted])).all(axis=1)
        return {
            "mean_average_precision": _number(mean_average_precision(self.probabilities, self.truth)),
            "macro_f1": _number(self.counts.macro_f1),
            "micro_f1": _number(self.counts.micro_f1),
            "exact_matches": _number(float(same.mean()) if len(same) else float("nan")),
            "intervals": {"exact_matches": _interval(intervals.share(int(same.sum()), len(same)))},
            "pictures": len(self.counted),
            "rows": len(self.predictions),
            "rejected": len(self.rejected),
            "unlabelled": sum(not own for own in self.labels),
            "trained_on": self.trained_on,
            "absent_classes": list(self.absent),
            "unknown_classes": self.unknown,
            "per_class": self._per_class(),
        }

    def _per_class(self) -> dict[str, dict[str, Any]]:
        counts = self.counts
        columns = {
            "average_precision": average_precision(self.probabilities, self.truth),
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
        }
        found = counts.hits + counts.false
        limits = {
            "f1": _f1_limits(counts),
            "precision": intervals.wilson(counts.hits, found),
            "recall": intervals.wilson(counts.hits, counts.support),
        }
        return {
            name: {
                "support": int(counts.support[place]),
                "found": int(found[place]),
                "threshold": self.thresholds[place],
                **{figure: _number(float(values[place])) for figure, values in columns.items()},
                "intervals": {figure: _interval((low[place], high[place])) for figure, (low, high) in limits.items()},
            }
            for place, name in enumerate(self.classes)
        }

    def _has(self, rows: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """Which of the classes each row names: bool [N, C]."""
        index = {name: place for place, name in enumerate(self.classes)}
        has = np.zeros((len(rows), len(self.classes)), dtype=np.bool_)
        for row, own in enumerate(rows):
            has[row, [index[name] for name in own if name in index]] = True
        return has


def per_class_table(figures: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str | float, ...]]]:
    """The header and the rows of `per_class.csv` from the figures of an evaluation."""
    names = ("support", "found", "threshold", "average_precision")
    limited = ("f1", "precision", "recall")
    header = ("class", *names, *(f"{name}{end}" for name in limited for end in ("", " low", " high")))
    rows = []
    for name, values in figures["per_class"].items():
        limits = [(values[figure], *(values["intervals"][figure] or (None, None))) for figure in limited]
        cells = (*(values[column] for column in names), *(cell for triple in limits for cell in triple))
        rows.append((name, *("" if cell is None else cell for cell in cells)))
    return header, rows


def _f1_limits(counts: LabelCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's limits of J = TP/(TP + FP + FN), of which F1 = 2J/(1 + J) is a rising function."""
    low, high = intervals.wilson(counts.hits, counts.hits + counts.false + counts.missed)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _number(value: float) -> float | None:
    return None if value != value else value


def _interval(limits: tuple[float, float]) -> list[float] | None:
    return None if limits[0] != limits[0] else [float(limits[0]), float(limits[1])]
