"""How much the best of several classifiers owes to being chosen on the images that it is measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionadapt.metrics.intervals import RESAMPLES

_SEED = 20_180_913
_CHUNK = 200


def accuracy_after_choosing(right: NDArray[np.bool_], resamples: int = RESAMPLES) -> float:
    """Accuracy to expect from the best of K classifiers on other images, from which of N images each classifies right.

    Bootstrap bias correction: the best on a resample of the images is measured on the images outside of it, and the
    mean is taken over many resamples (Tsamardinos et al., "Bootstrapping the out-of-sample predictions for efficient
    and accurate cross-validation", 2018). Among equals, the first one is the best.

    Args:
        right: bool [K, N].
        resamples: how many.
    """
    _, n = right.shape
    random, total, used = np.random.default_rng(_SEED), 0.0, 0
    for start in range(0, resamples, _CHUNK):
        counts = random.multinomial(n, np.full(n, 1 / n), min(_CHUNK, resamples - start))
        chosen = (counts @ right.T.astype(np.int64)).argmax(axis=1)
        outside = counts == 0
        some = outside.any(axis=1)
        shares = (right[chosen] & outside).sum(axis=1)[some] / outside.sum(axis=1)[some]
        total, used = total + float(shares.sum()), used + int(some.sum())
    return total / used if used else float("nan")
