"""Whether two classifiers that were measured on the same images differ by more than chance."""

from __future__ import annotations

import math


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
