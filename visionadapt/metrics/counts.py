"""Metrics from counts: recall, precision and F1 of each class, and what follows from a confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Counted(Protocol):
    """Anything that counts, for each of C classes, int64 [C] each."""

    @property
    def hits(self) -> NDArray[np.int64]:
        """Images with the class that are predicted to have it."""

    @property
    def support(self) -> NDArray[np.int64]:
        """Images with the class."""

    @property
    def found(self) -> NDArray[np.int64]:
        """Images predicted to have the class."""


class Rates:
    """The rates of each class of a `Counted`; NaN where the denominator is 0."""

    @property
    def recall(self: Counted) -> NDArray[np.float64]:
        """TP / (TP + FN): float64 [C]."""
        return divide(self.hits, self.support)

    @property
    def precision(self: Counted) -> NDArray[np.float64]:
        """TP / (TP + FP): float64 [C]."""
        return divide(self.hits, self.found)

    @property
    def f1(self: Counted) -> NDArray[np.float64]:
        """2·TP / (2·TP + FP + FN): float64 [C]."""
        return divide(2 * self.hits, self.found + self.support)

    @property
    def macro_f1(self: Counted) -> float:
        """Mean F1 over the classes that have images or were predicted."""
        return mean_of(divide(2 * self.hits, self.found + self.support))


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


def divide(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    """Divide element by element; 0/0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(top, bottom))


def mean_of(values: NDArray[np.float64]) -> float:
    """Mean of the values that are numbers; NaN where none is."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")
