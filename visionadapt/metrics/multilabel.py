"""Figures of a classifier that says of each class whether a picture has it: average precision, F1, thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_THRESHOLD = 0.5
"""The threshold of a class that no picture has."""


@dataclass(frozen=True)
class LabelCounts:
    """How often each class was rightly found, wrongly found and missed: int64 [C] each.

    A figure that has no denominator (recall of a class that no picture has, precision of one never found) is NaN.
    """

    hits: NDArray[np.int64]
    false: NDArray[np.int64]
    missed: NDArray[np.int64]

    @classmethod
    def of(cls, truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> LabelCounts:
        """Count bool [N, C]: which classes each picture has, and which were found."""
        return cls((truth & found).sum(0), (~truth & found).sum(0), (truth & ~found).sum(0))

    @property
    def support(self) -> NDArray[np.int64]:
        """How many pictures have each class: int64 [C]."""
        return self.hits + self.missed

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the pictures with a class in which it is found: float64 [C]."""
        return _divide(self.hits, self.support)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of right ones among the pictures in which a class is found: float64 [C]."""
        return _divide(self.hits, self.hits + self.false)

    @property
    def f1(self) -> NDArray[np.float64]:
        """2·TP / (2·TP + FP + FN) of each class: float64 [C]."""
        return _divide(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that some picture has."""
        return mean_of(self.f1[self.support > 0])

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together."""
        hits, wrong = int(self.hits.sum()), int(self.false.sum() + self.missed.sum())
        return 2 * hits / (2 * hits + wrong) if hits + wrong else float("nan")


def average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Σ (R_k − R_{k−1}) P_k over the distinct scores of a class from the highest on: [N, C] and [N, C] → float64 [C].

    It is not interpolated; pictures of one score count together. NaN for a class that no picture has.
    """
    return np.array([_average_precision(*_ranked(scores[:, c], truth[:, c])) for c in range(scores.shape[1])])


def mean_average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Mean of `average_precision` over the classes that some picture has: [N, C] twice → [0, 1], or NaN for none."""
    return mean_of(average_precision(scores, truth))


def best_thresholds(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The thresholds t in [0, 1] for which `probabilities >= t` has the highest F1: [N, C] and [N, C] → float64 [C].

    Each lies halfway between the lowest probability that is taken and the highest that is not (or 0). Of equally good
    ones the highest is chosen; a class that no picture has gets 0.5.
    """
    return np.array([_best_threshold(*_ranked(probabilities[:, c], truth[:, c])) for c in range(truth.shape[1])])


def mean_of(figures: NDArray[np.float64]) -> float:
    """The mean of the figures that are numbers; NaN where none is."""
    there = figures[~np.isnan(figures)]
    return float(there.mean()) if there.size else float("nan")


def _ranked(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct scores from the highest on; how many pictures reach each, and how many of these have the class."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.empty(0, np.int64)
    return ordered[ends], ends + 1, np.cumsum(truth[order], dtype=np.int64)[ends]


def _average_precision(scores: NDArray[np.float64], reached: NDArray[np.int64], hits: NDArray[np.int64]) -> float:
    if not len(hits) or not hits[-1]:
        return float("nan")
    return float((np.diff(hits, prepend=0) * (hits / reached)).sum() / hits[-1])


def _best_threshold(scores: NDArray[np.float64], reached: NDArray[np.int64], hits: NDArray[np.int64]) -> float:
    if not len(hits) or not hits[-1]:
        return NO_THRESHOLD
    best = int(np.argmax(2 * hits / (reached + hits[-1])))
    taken, left = float(scores[best]), float(scores[best + 1]) if best + 1 < len(scores) else 0.0
    middle = (taken + left) / 2
    return middle if middle > left else taken


def _divide(top: NDArray[np.int64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(top, bottom))
