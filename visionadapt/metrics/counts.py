"""Recall, precision and F1 of each class, from its counts of hits, images and predictions."""

from __future__ import annotations

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


def divide(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    """Divide element by element; 0/0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(top, bottom))


def mean_of(values: NDArray[np.float64]) -> float:
    """Mean of the values that are numbers; NaN where none is."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")
