"""Correlation of two images under small shifts and changes of scale, which recognises cropped copies."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_SIDE = 12
_MIDDLE = 0.8
_SCALES = (0.93, 1.0, 1.08)
_SHIFTS = (-0.08, -0.04, 0.0, 0.04, 0.08)
_PAIRS_AT_ONCE = 64


def correlation(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compute the highest correlation of each second image's middle with a window of the first: uint8 [P, S, S] → [P].

    The middle is 80 % of height and width; the windows are scaled by 0.93 to 1.08, height and width independently, and
    shifted by up to 4 % of a side. Copies have 1, whatever their brightness and contrast.
    """
    parts = []
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        stop = start + _PAIRS_AT_ONCE
        windows = _standardised(_sampled(first[start:stop], _windows()))
        middles = _standardised(_sampled(second[start:stop], _middle()))
        parts.append((windows @ middles.mT).amax(dim=(1, 2)))
    result: npt.NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.empty(0, np.float32)
    return result


@cache
def _windows() -> Tensor:
    """Sampling grid of every window: [W, 12, 12, 2]."""
    places = list(product(_SCALES, _SCALES, _SHIFTS, _SHIFTS))
    maps = [[[_MIDDLE * wide, 0.0, right], [0.0, _MIDDLE * high, down]] for high, wide, down, right in places]
    return affine_grid(torch.tensor(maps), [len(maps), 1, _SIDE, _SIDE], align_corners=False)


@cache
def _middle() -> Tensor:
    """Sampling grid of the middle: [1, 12, 12, 2]."""
    return affine_grid(torch.tensor([[[_MIDDLE, 0.0, 0.0], [0.0, _MIDDLE, 0.0]]]), [1, 1, _SIDE, _SIDE], False)


def _sampled(images: npt.NDArray[np.uint8], grid: Tensor) -> Tensor:
    """Sample uint8 [P, S, S] on a grid [W, 12, 12, 2] → float32 [P, W, 144]."""
    count, windows = len(images), len(grid)
    stacked = grid.reshape(1, windows * _SIDE, _SIDE, 2).expand(count, -1, -1, -1)
    values = grid_sample(
        torch.from_numpy(images.astype(np.float32))[:, None], stacked, padding_mode="border", align_corners=False
    )
    return values.reshape(count, windows, _SIDE * _SIDE)


def _standardised(values: Tensor) -> Tensor:
    """Shift and scale to mean 0 and norm 1 along the last axis."""
    return torch.nn.functional.normalize(values - values.mean(dim=-1, keepdim=True), dim=-1)
