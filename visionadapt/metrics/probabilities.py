"""Metrics of a single-label classifier from its probabilities: top-k accuracy, log-loss and calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Equal-width bins of confidence, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""


def losses(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """−log p of each true class: float64 [N, C] and int64 [N] → float64 [N], in nats.

    Probabilities are clipped by the machine epsilon, as in scikit-learn; the mean is the log-loss.
    """
    epsilon = np.finfo(np.float64).eps
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], epsilon, 1 - epsilon)
    return -np.log(chosen)


def in_top(probabilities: NDArray[np.float64], truth: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Whether each true class is among the `count` most probable ones: float64 [N, C] and int64 [N] → bool [N].

    Of equally probable classes the later ones come first, as in scikit-learn.
    """
    own = probabilities[np.arange(len(truth)), truth][:, None]
    later = np.arange(probabilities.shape[1]) > truth[:, None]
    likelier = (probabilities > own) | ((probabilities == own) & later)
    return np.asarray(likelier.sum(axis=1) < count)


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the bin ((b − 1)/15, b/15] of each probability in [0, 1]: int64 [N] in [0, 15)."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1).astype(np.int64)


def gaps(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Σ (correct − confidence) / N over the images of each bin: float64 [15]; the sum of absolute values is the ECE."""
    sums = np.bincount(bin_of(confidence), weights=correct - confidence, minlength=BINS)
    return np.asarray(sums / max(len(confidence), 1), dtype=np.float64)


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """The expected calibration error of top-class probabilities, over 15 equal-width bins; in [0, 1].

    ECE = Σ_b n_b/N · |accuracy_b − mean confidence_b| (Naeini et al., 2015; Guo et al., 2017, equation 3). On N images
    even a perfectly calibrated classifier has one above 0; `intervals.calibrated_band` returns how much.
    """
    return float(np.abs(gaps(confidence, correct)).sum()) if len(confidence) else float("nan")


def tempered(probabilities: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Normalise p^power to sum 1: float64 [N, C]. With the temperature as power it undoes the calibration."""
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities) * power
    shifted = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
