"""95 % intervals of a classifier's metrics: closed forms for shares and means of shares, a bootstrap elsewhere."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionadapt.metrics.counts import Counted
from visionadapt.metrics.probabilities import BINS, bin_of, gaps

LEVEL = 0.95
RESAMPLES = 2_000
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_SEED = 20_170_806
_CHUNK = 100
_NORMAL = 20_000
_DRAWN_AT_ONCE = 1_000_000
"""Outcomes of images that are drawn at once: a few tens of megabytes."""

Interval = tuple[float, float]
NONE: Interval = (float("nan"), float("nan"))


def wilson(successes: ArrayLike, total: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limit of a share of `total` trials (Wilson, 1927); NaN without trials.

    >>> [round(float(limit), 4) for limit in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    k, n = np.asarray(successes, np.float64), np.asarray(total, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / n
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def per_class(counts: Counted) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Wilson's limits of each class's recall, precision and F1: float64 [C] each.

    Those of F1 follow from J = TP/(TP + FP + FN), since F1 = 2J/(1 + J) increases with J.
    """
    low, high = wilson(counts.hits, counts.found + counts.support - counts.hits)
    return {
        "recall": wilson(counts.hits, counts.support),
        "precision": wilson(counts.hits, counts.found),
        "f1": (2 * low / (1 + low), 2 * high / (1 + high)),
    }


def share(successes: int, total: int) -> Interval:
    """Wilson's interval for one share."""
    low, high = wilson(successes, total)
    return float(low), float(high)


def balanced_accuracy(counts: NDArray[np.int64]) -> Interval:
    """Interval of the mean recall over the classes that have images, from counts as in `ConfusionMatrix`.

    The variance is that of independent recalls, p(1 − p)/n each; the mean is treated as normal on the logit scale. In
    the variance p is shrunk towards the accuracy with the weight of two images, so that a class of few images, all
    classified correctly, does not count as certain.
    """
    total = counts.sum(axis=1)
    present = total > 0
    if not present.any():
        return NONE
    hits, total = np.diagonal(counts)[present], total[present]
    drawn = (hits + 2 * _accuracy(counts)) / (total + 2)
    variance = (drawn * (1 - drawn) / total).sum() / len(total) ** 2
    return _on_logits(float((hits / total).mean()), float(variance), int(total.sum()))


def macro_f1(counts: NDArray[np.int64]) -> Interval:
    """Interval of the mean F1 over the classes that have images or were predicted.

    Delta method on the multinomial counts (Takahashi et al., "Confidence interval for micro-averaged F1 and
    macro-averaged F1 scores", 2022), on the logit scale. The mean is first corrected for its second-order bias,
    −F1(1 − F1)/(2·TP + FP + FN) per class. For the variance each row of the matrix gets one more image, distributed
    according to the accuracy; the factor 1 + classes/(2·images) corrects for few images per class.
    """
    total = int(counts.sum())
    if not total:
        return NONE
    places = counts.sum(axis=0) + counts.sum(axis=1)
    there = places > 0
    f1 = 2 * np.diagonal(counts)[there] / places[there]
    if f1.min() == 1:
        return _on_logits(1.0, 0.0, total)
    middle = float((f1 + f1 * (1 - f1) / places[there]).mean())
    variance = _variance_of_macro_f1(_filled(counts)) * (1 + int(there.sum()) / (2 * total))
    return _on_logits(middle, variance, total)


def log_loss(losses: NDArray[np.float64], seed: int = _SEED) -> Interval:
    """Interval of the mean of losses float64 [N].

    A few losses are far larger than all others, which makes the intervals of a percentile bootstrap too narrow. This is
    the studentised one (bootstrap-t: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 12.5); the
    mean of more than 20,000 losses is nearly normal.
    """
    n = len(losses)
    if n < 2:
        return NONE
    mean, error = float(losses.mean()), float(losses.std(ddof=1)) / math.sqrt(n)
    if error == 0 or n > _NORMAL:
        return max(mean - _Z * error, 0.0), mean + _Z * error
    random = np.random.default_rng(seed)
    ratios = np.concatenate([_studentised(losses, random, _CHUNK) for _ in range(RESAMPLES // _CHUNK)])
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(mean - float(high) * error, 0.0), mean - float(low) * error


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], seed: int = _SEED) -> Interval:
    """Interval of the calibration error that the same bins would have on an infinite number of images.

    On few images the measured error is above that, since chance opens a gap in every bin, and its bootstrap is higher
    still. This interval inverts a test instead: it contains the errors under which the measured one is not unusual,
    where the true gaps are the measured ones times one factor. Its lower limit is 0 if a perfectly calibrated
    classifier could have the measured error.
    """
    if not len(confidence):
        return NONE
    measured = gaps(confidence, correct)
    noise = np.random.default_rng(seed).standard_normal((RESAMPLES, len(measured))) * _gap_errors(confidence, correct)
    size = float(np.abs(measured).sum())
    low, high = (size * _factor(measured, noise, quantile) for quantile in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return min(low, 1.0), min(high, 1.0)


def calibrated_band(confidence: NDArray[np.float64], seed: int = _SEED) -> Interval:
    """Central 95 % of the calibration errors of a perfectly calibrated classifier with this confidence.

    Each prediction is drawn as correct with its own confidence (consistency resampling: Bröcker and Smith, 2007); for
    more than 20,000 predictions the sum of each bin is drawn from a normal distribution.
    """
    if not len(confidence):
        return NONE
    random, n = np.random.default_rng(seed), len(confidence)
    if n > _NORMAL:
        errors = np.sqrt(np.bincount(bin_of(confidence), weights=confidence * (1 - confidence), minlength=BINS)) / n
        drawn = np.abs(random.standard_normal((RESAMPLES, BINS)) * errors).sum(axis=1)
    else:
        bins, rows = bin_of(confidence), max(_DRAWN_AT_ONCE // n, 1)
        drawn = np.concatenate(
            [_drawn_errors(confidence, bins, random, min(rows, RESAMPLES - done)) for done in range(0, RESAMPLES, rows)]
        )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _drawn_errors(
    confidence: NDArray[np.float64], bins: NDArray[np.int64], random: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Calibration errors of resamples in which each prediction is correct with its confidence: float64 [resamples]."""
    n = len(confidence)
    differences = (random.random((resamples, n)) < confidence) - confidence
    places = np.arange(resamples)[:, None] * BINS + bins
    sums = np.bincount(places.ravel(), weights=differences.ravel(), minlength=resamples * BINS)
    return np.asarray(np.abs(sums.reshape(resamples, BINS) / n).sum(axis=1))


def _accuracy(counts: NDArray[np.int64]) -> float:
    """The accuracy shrunk slightly towards one half, so that it is neither 0 nor 1."""
    return float((np.trace(counts) + 1) / (counts.sum() + 2))


def _on_logits(value: float, variance: float, images: int) -> Interval:
    """Interval of a mean of shares that is normal on the logit scale; Wilson's where all or none are correct."""
    if value in {0.0, 1.0}:
        return share(round(value * images), images)
    value = min(max(value, 0.5 / images), 1 - 0.5 / images)
    middle, half = math.log(value / (1 - value)), _Z * math.sqrt(variance) / (value * (1 - value))
    return 1 / (1 + math.exp(min(half - middle, 700))), 1 / (1 + math.exp(-half - middle))


def _filled(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts with one more image in each nonempty row, scaled to the original sum: float64 [C, C]."""
    right, classes = _accuracy(counts), len(counts)
    more = np.full(counts.shape, (1 - right) / max(classes - 1, 1))
    np.fill_diagonal(more, right)
    filled = counts + more * (counts.sum(axis=1) > 0)[:, None]
    return np.asarray(filled * (counts.sum() / filled.sum()))


def _variance_of_macro_f1(counts: NDArray[np.float64]) -> float:
    """Σ n g² − (Σ n g)²/N with the gradient g of the macro-F1 with respect to the counts n, float64 [C, C]."""
    places = counts.sum(axis=0) + counts.sum(axis=1)
    there = places > 0
    safe = np.where(there, places, 1)
    down = np.where(there, 2 * np.diagonal(counts) / safe**2, 0)
    gradient = -(down[:, None] + down[None, :])
    gradient[np.diag_indices_from(gradient)] += np.where(there, 2 / safe, 0)
    gradient /= there.sum()
    first = (counts * gradient).sum()
    return float((counts * gradient**2).sum() - first**2 / counts.sum())


def _studentised(losses: NDArray[np.float64], random: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """(mean* − mean) / standard error* of some resamples: float64 [resamples]."""
    n = len(losses)
    drawn = losses[random.integers(0, n, (resamples, n))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    floor = np.finfo(np.float64).tiny
    return np.asarray((drawn.mean(axis=1) - losses.mean()) / np.maximum(errors, floor))


def _gap_errors(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Standard error of each bin's gap: float64 [15].

    The larger of the empirical one and that of an accuracy shrunk towards the confidence with the weight of two images,
    since all images of a sparse bin may be correct by chance.
    """
    bins, n = bin_of(confidence), len(confidence)

    def per_bin(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(bins, weights=weights, minlength=BINS), dtype=np.float64)

    total, sure, right = per_bin(np.ones(n)), per_bin(confidence), per_bin(correct.astype(np.float64))
    accuracy = (right + 2 * sure / np.maximum(total, 1)) / (total + 2)
    own = per_bin((correct - confidence) ** 2) - (right - sure) ** 2 / n
    return np.asarray(np.sqrt(np.maximum(total * accuracy * (1 - accuracy), own)) / n)


def _factor(measured: NDArray[np.float64], noise: NDArray[np.float64], quantile: float) -> float:
    """The factor t at which a quantile of Σ|t · gap + noise| is the measured Σ|gap|; 0 if it is above that at t = 0."""
    size = np.abs(measured).sum()

    def above(factor: float) -> bool:
        return bool(np.quantile(np.abs(factor * measured + noise).sum(axis=1), quantile) >= size)

    low, high = 0.0, 1.0
    if above(low):
        return 0.0
    while not above(high):
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high
