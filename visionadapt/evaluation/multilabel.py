"""Evaluation of a classifier that gives an image any number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.metrics import intervals
from visionadapt.tasks import LabelCounts, TaskName, average_precision, mean_average_precision


@dataclass(frozen=True, repr=False)
class MultiLabelEvaluation(Evaluation):
    """The result of an evaluation where an image has any number of classes; a row without labels has none."""

    task: ClassVar[TaskName] = "multilabel"
    rates: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    unknown_note: ClassVar[str] = "its label is in no metric"

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
