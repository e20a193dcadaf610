"""Metrics of a multi-label classifier: average precision, F1, and the best thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionadapt.metrics.counts import Rates, mean_of

NO_THRESHOLD = 0.5
"""The threshold of a class that no image has."""


@dataclass(frozen=True)
class LabelCounts(Rates):
    """True positives, false positives and false negatives of each class: int64 [C] each.

    A metric without a denominator (recall of a class that no image has, precision of one never found) is NaN.
    """

    hits: NDArray[np.int64]
    false: NDArray[np.int64]
    missed: NDArray[np.int64]

    @classmethod
    def of(cls, truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> LabelCounts:
        """Count bool [N, C]: which classes each image has, and which were found."""
        return cls((truth & found).sum(0), (~truth & found).sum(0), (truth & ~found).sum(0))

    @property
    def support(self) -> NDArray[np.int64]:
        """Images with each class: int64 [C]."""
        return self.hits + self.missed

    @property
    def found(self) -> NDArray[np.int64]:
        """Images in which each class is found: int64 [C]."""
        return self.hits + self.false

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together."""
        hits, wrong = int(self.hits.sum()), int(self.false.sum() + self.missed.sum())
        return 2 * hits / (2 * hits + wrong) if hits + wrong else float("nan")


def average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Σ (R_k − R_{k−1}) P_k over the distinct scores of a class, descending: [N, C] and [N, C] → float64 [C].

    Not interpolated; images with equal scores count together. NaN for a class that no image has.
    """
    return np.array([_average_precision(*_ranked(scores[:, c], truth[:, c])) for c in range(scores.shape[1])])


def mean_average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Mean of `average_precision` over the classes that some image has: [N, C] twice → [0, 1], or NaN for none."""
    return mean_of(average_precision(scores, truth))


def precision_recall(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall of one class at each of its K distinct scores, descending: [N] and [N] → float64 [K] twice.

    NaN recall for a class that no image has.
    """
    _, reached, hits = _ranked(scores, truth)
    total = int(hits[-1]) if len(hits) else 0
    return hits / reached, hits / total if total else np.full(len(hits), np.nan)


def losses(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Binary cross-entropy of each image, the mean over its classes: [N, C] and [N, C] → float64 [N], in nats.

    Probabilities are clipped by the machine epsilon, as in scikit-learn.
    """
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(probabilities, epsilon, 1 - epsilon)
    return np.asarray(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean(axis=1))


def best_thresholds(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Thresholds t in [0, 1] for which `probabilities >= t` has the highest F1: [N, C] and [N, C] → float64 [C].

    Each is halfway between the lowest accepted probability and the highest rejected one (or 0). Of equally good ones
    the highest is chosen; a class that no image has gets 0.5.
    """
    return np.array([_best_threshold(*_ranked(probabilities[:, c], truth[:, c])) for c in range(truth.shape[1])])


def _ranked(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct scores, descending; how many images reach each, and how many of these have the class."""
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
