"""Which of several classifiers to average, by their probabilities of the same validation images."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MOST_MEMBERS = 3
"""Classifiers in an ensemble at most: each one costs time at every prediction."""


def choose_members(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[int]:
    """Choose classifiers whose mean of logarithms of probabilities has the lowest cross-entropy.

    Forward selection without replacement, from the best single one: Caruana et al., "Ensemble selection from libraries
    of models", ICML 2004, with the geometric mean of probabilities.

    Args:
        probabilities: float64 [K, N, C], of K classifiers, N images and C classes, in (0, 1].
        labels: true class of each image, int64 [N].

    Returns:
        Indices into K in the order of choosing: one, if no other lowers the cross-entropy, and `MOST_MEMBERS` at most.
    """
    logs = _logs(probabilities)
    chosen: list[int] = []
    lowest = math.inf
    while len(chosen) < min(MOST_MEMBERS, len(logs)):
        others = [place for place in range(len(logs)) if place not in chosen]
        losses = [float(_losses(logs[[*chosen, place]], labels).mean()) for place in others]
        best = int(np.argmin(losses))
        if losses[best] >= lowest:
            break
        chosen, lowest = [*chosen, others[best]], losses[best]
    return chosen


def geometric_mean(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the geometric mean of K classifiers' probabilities, scaled to a sum of 1: [K, N, C] → [N, C].

    >>> geometric_mean(np.array([[[0.5, 0.5]], [[0.8, 0.2]]])).round(3).tolist()
    [[0.667, 0.333]]
    """
    return np.exp(_log_mean(_logs(probabilities)))


def is_better(one: NDArray[np.float64], other: NDArray[np.float64], labels: NDArray[np.int64]) -> bool:
    """Whether the cross-entropy of some probabilities [N, C] is lower than that of others by more than chance.

    True if the 95 % interval of the mean difference on the same images (normal approximation) is above 0.
    """
    gains = _losses(_logs(other)[None], labels) - _losses(_logs(one)[None], labels)
    if len(gains) < 2:
        return False
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains))
    return float(gains.mean()) > NormalDist().inv_cdf(0.975) * error


def _logs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities, 1e-12))


def _log_mean(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = logs.mean(axis=0)
    top = mean.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = mean - top - np.log(np.exp(mean - top).sum(axis=1, keepdims=True))
    return normalised


def _losses(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy of each image [N] under the geometric mean of K classifiers: logs [K, N, C]."""
    losses: NDArray[np.float64] = -_log_mean(logs)[np.arange(len(labels)), labels]
    return losses
