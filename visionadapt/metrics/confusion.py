"""Metrics of a single-label classifier from its confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionadapt.metrics.counts import Rates, divide, mean_of


@dataclass(frozen=True)
class ConfusionMatrix(Rates):
    """Counts int64 [C, C]: row = true class, column = predicted class.

    A metric without a denominator (recall of a class without images, precision of one never predicted) is NaN.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Iterable[int], predicted: Iterable[int], classes: int) -> ConfusionMatrix:
        """Count pairs of class indices in [0, classes), one true and one predicted index per image."""
        flat = np.fromiter(truth, np.int64) * classes + np.fromiter(predicted, np.int64)
        return cls(np.bincount(flat, minlength=classes * classes).reshape(classes, classes))

    @property
    def hits(self) -> NDArray[np.int64]:
        """Images of each class that are classified correctly: int64 [C]."""
        return np.diagonal(self.counts)

    @property
    def support(self) -> NDArray[np.int64]:
        """Images of each class: int64 [C]."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def found(self) -> NDArray[np.int64]:
        """Images classified as each class: int64 [C]."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return float(divide(np.trace(self.counts), self.counts.sum()))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images."""
        return mean_of(self.recall)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images or were predicted."""
        return mean_of(self.f1)
