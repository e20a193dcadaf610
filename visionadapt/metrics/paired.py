"""Whether two classifiers that were measured on the same images differ by more than chance."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from visionadapt.metrics.intervals import LEVEL, RESAMPLES

_SEED = 20_191_104
_CHUNK = 200


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947).

    Args:
        first: images that only the first classifier classifies correctly.
        second: images that only the second does.

    Returns:
        The probability of a split at least as uneven if both were equally good; 1 where they differ on no image.

    >>> round(mcnemar(9, 1), 4)
    0.0215
    """
    count, fewer = first + second, min(first, second)
    if count > 1000:  # the exact sum is no longer needed
        return math.erfc(max(abs(first - second) - 1, 0) / math.sqrt(2 * count))
    return min(1.0, float(2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count))


def difference(first: int, second: int, images: int) -> tuple[float, float, float]:
    """Difference of two accuracies on the same images, and its 95 % interval (Bonett and Price, 2012).

    Args:
        first, second: as in `mcnemar`.
        images: all images that both were measured on.

    Returns:
        How much higher the accuracy of the first is, the lower and the upper limit, in [-1, 1].

    >>> [round(value, 3) for value in difference(9, 1, 40)]
    [0.2, 0.039, 0.342]
    """
    p, q = (first + 1) / (images + 2), (second + 1) / (images + 2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt((p + q - (p - q) ** 2) / (images + 2))
    return (first - second) / images, max(p - q - half, -1.0), min(p - q + half, 1.0)


def macro_f1_difference(
    first: NDArray[np.int64], second: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> tuple[float, float, float]:
    """Difference of two macro-F1 on the same images, and its 95 % interval: percentiles of a bootstrap of the images.

    Args:
        first, second: predicted class of each image, int64 [N].
        labels: true class of each image, int64 [N].
        classes: how many there are.

    Returns:
        How much higher that of the first is, the lower and the upper limit, in [-1, 1].
    """
    random, n = np.random.default_rng(_SEED), len(labels)
    weights = [random.multinomial(n, np.full(n, 1 / n), _CHUNK) for _ in range(RESAMPLES // _CHUNK)]
    one, two = ([_macro_f1(part, each, labels, classes) for part in weights] for each in (first, second))
    low, high = np.quantile(np.concatenate(one) - np.concatenate(two), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    whole = np.ones((1, n), np.int64)
    by = (_macro_f1(whole, first, labels, classes) - _macro_f1(whole, second, labels, classes)).item()
    return by, float(low), float(high)


def _macro_f1(
    weights: NDArray[np.int64], predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Return the macro-F1 [R] of R weightings of the images [R, N], over the classes that are there or predicted."""
    true, found = (np.eye(classes, dtype=np.float64)[each] for each in (labels, predicted))
    hits, places = weights @ (true * found), weights @ (true + found)
    shares = np.divide(2 * hits, places, out=np.zeros_like(places), where=places > 0)
    mean: NDArray[np.float64] = shares.sum(axis=1) / (places > 0).sum(axis=1)
    return mean
