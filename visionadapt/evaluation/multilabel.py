"""Evaluation of a classifier that gives an image any number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from visionadapt.evaluation import plots
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.metrics import intervals
from visionadapt.metrics.multilabel import losses
from visionadapt.system.text import percent
from visionadapt.tasks import LabelCounts, TaskName, average_precision, mean_average_precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class MultiLabelEvaluation(Evaluation):
    """The result of an evaluation where an image has any number of classes; a row without labels has none."""

    task: ClassVar[TaskName] = "multilabel"
    rates: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    unknown_note: ClassVar[str] = "its label is in no metric"
    plots: ClassVar[tuple[str, ...]] = ("classes", "precision_recall", "reliability", "losses")

    @property
    def headline(self) -> tuple[str, float]:
        """Macro-F1."""
        return "macro_f1", self.counts.macro_f1

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which classes the counted rows have: bool [N, C]."""
        return self._has(self.true_classes)

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Which classes are predicted for the counted rows: bool [N, C]."""
        return self._has([row.labels for row in self.predictions])

    @cached_property
    def counts(self) -> LabelCounts:
        """True positives, false positives and false negatives of each class."""
        return LabelCounts.of(self.truth, self.found)

    def _losses(self) -> NDArray[np.float64]:
        return losses(self.probabilities, self.truth)

    def _plotted(self, what: str) -> Figure:
        if what == "classes":
            columns = {"average precision": average_precision(self.probabilities, self.truth), "F1": self.counts.f1}
            return plots.class_bars(self.classes, columns)
        if what == "precision_recall":
            return plots.precision_recall(self.classes, self.probabilities, self.truth)
        return plots.reliability(
            self.probabilities.ravel(), self.truth.ravel(), ("probability of a class", "share that has the class")
        )

    def _judged(self, row: int) -> str:
        probable = dict(zip(self.classes, self.predictions[row].probabilities, strict=True))
        found = [f"{name} {percent(probable[name], 0)}" for name in self.predictions[row].labels]
        truth = [f"{name} {percent(probable.get(name), 0)}" for name in self.true_classes[row]]
        return f"{', '.join(found) or 'no class'}\nlabelled {', '.join(truth) or 'none'}"

    def _overall(self) -> tuple[dict[str, float], dict[str, intervals.Interval]]:
        same = (self.truth == self.found).all(axis=1)
        values = {
            "mean_average_precision": mean_average_precision(self.probabilities, self.truth),
            "macro_f1": self.counts.macro_f1,
            "micro_f1": self.counts.micro_f1,
            "exact_matches": float(same.mean()) if len(same) else float("nan"),
        }
        return values, {"exact_matches": intervals.share(int(same.sum()), len(same))}

    def _columns(self) -> dict[str, Sequence[float] | NDArray[Any]]:
        return {
            "support": self.counts.support,
            "found": self.counts.found,
            "threshold": self.calibration.thresholds,
            "average_precision": average_precision(self.probabilities, self.truth),
        }

    def _has(self, rows: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """Which of the classes each counted row names: bool [N, C]."""
        index = {name: place for place, name in enumerate(self.classes)}
        has = np.zeros((len(self.counted), len(self.classes)), dtype=np.bool_)
        for row, place in enumerate(self.counted):
            has[row, [index[name] for name in rows[place] if name in index]] = True
        return has
