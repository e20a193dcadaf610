"""Figures of a classifier, all of them from its confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts int64 [C, C]: row = true class, column = predicted class.

    A figure that has no denominator (recall of a class without pictures, precision of one never predicted) is NaN.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Iterable[int], predicted: Iterable[int], classes: int) -> ConfusionMatrix:
        """Count pairs of class indices in [0, classes), a true and a predicted one a picture, as many of each."""
        flat = np.fromiter(truth, np.int64) * classes + np.fromiter(predicted, np.int64)
        return cls(np.bincount(flat, minlength=classes * classes).reshape(classes, classes))

    @property
    def support(self) -> NDArray[np.int64]:
        """How many pictures each class has: int64 [C]."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def accuracy(self) -> float:
        """Share of pictures whose predicted class is the true one."""
        return float(_divide(np.trace(self.counts), self.counts.sum()))

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of each class's pictures that are recognised: float64 [C]."""
        return _divide(np.diagonal(self.counts), self.counts.sum(axis=1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of right ones among the pictures taken for each class: float64 [C]."""
        return _divide(np.diagonal(self.counts), self.counts.sum(axis=0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """2·TP / (2·TP + FP + FN) of each class: float64 [C]."""
        return _divide(2 * np.diagonal(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have pictures."""
        present = self.recall[self.support > 0]
        return float(present.mean()) if present.size else float("nan")

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have pictures or were predicted."""
        there = self.f1[~np.isnan(self.f1)]
        return float(there.mean()) if there.size else float("nan")


def _divide(top: NDArray[np.int64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(top, bottom))
