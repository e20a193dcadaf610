"""Quality of an image as a photograph: blur, brightness and information, measured on its reduced luma."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Quality(NamedTuple):
    """Measures of an image, on its luma reduced to at most 256 pixels per side.

    Attributes:
        sharpness: variance of the Laplacian divided by the variance of the luma (J. L. Pech-Pacheco et al., "Diatom
            autofocusing in brightfield microscopy", 2000; the division removes the contrast).
        brightest, darkest: 99th and 5th percentile of the luma, 0 to 1.
        entropy: of the histogram of 256 levels, 0 to 8 bits.
    """

    sharpness: float
    brightest: float
    darkest: float
    entropy: float


def quality(luma: Tensor) -> Quality:
    """Measure a luma, float32 [H, W] in 0–255."""
    levels = torch.bincount(luma.round().clamp(0, 255).long().flatten(), minlength=256).double()
    shares = levels[levels > 0] / luma.numel()
    cumulated = levels.cumsum(0) / luma.numel()
    darkest, brightest = torch.searchsorted(cumulated, torch.tensor([0.05, 0.99], dtype=torch.float64)).tolist()
    return Quality(_sharpness(luma), brightest / 255, darkest / 255, float(-(shares * shares.log2()).sum()))


def _sharpness(luma: Tensor) -> float:
    if min(luma.shape) < 3:
        return 1.0
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.var(correction=0) / luma.var(correction=0).clamp(min=1e-6))
