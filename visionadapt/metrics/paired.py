"""Whether two classifiers that were measured on the same images differ by more than chance."""

from __future__ import annotations

import math
from statistics import NormalDist


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
