"""Align two images and compare their fine detail, which only copies have in common."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, pad

_MIDDLE = 0.8
_COARSE, _MEDIUM, _FINE = 12, 16, 48
_BOX = 5
_LAYOUT = 0.85
_NOISE = 1e-4
_SCALES = (0.93, 1.0, 1.08)
_SHIFTS = (-0.08, -0.04, 0.0, 0.04, 0.08)
_STEPS = (0.03, 0.015, 0.0075, 0.004)
_PAIRS_AT_ONCE = 64

_PLACES = torch.tensor(list(product(_SCALES, _SCALES, _SHIFTS, _SHIFTS)))
_NEIGHBOURS = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=4)))
_UNMOVED = torch.tensor([1.0, 1.0, 0.0, 0.0])

Thumbnails = npt.NDArray[np.uint8]


def agreement(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.float32]:
    """Compute how much of the fine detail of two images agrees, −1 to 1, of uint8 [P, S, S] and [P, S, S]: float32 [P].

    The middle of the second image, 80 % of its height and width, is placed on the first where their lumas correlate
    most. Places are tried on a grid (scales of 0.93 to 1.08, height and width independently, shifts by up to 4 % of a
    side), then around the best one in ever smaller steps; if no correlation of the grid reaches 0.85, the result is 0.
    Otherwise it is the normalised correlation (zero mean, unit norm) of the two places without their local means,
    those of 5 × 5 of 48 × 48 cells. Copies have nearly 1, whatever their brightness and contrast; images that only have
    the same layout have much less.
    """
    parts = []
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        chosen = slice(start, start + _PAIRS_AT_ONCE)
        parts.append(_agreement(*(torch.from_numpy(some[chosen].astype(np.float32)) for some in (first, second))))
    result: npt.NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.empty(0, np.float32)
    return result


def _agreement(first: Tensor, second: Tensor) -> Tensor:
    # 1) the best place on the grid, on images of half the size
    middle = _sampled(_halved(second), _UNMOVED.expand(len(second), 1, 4), _COARSE)
    found = _correlation(_sampled(_halved(first), _PLACES.expand(len(first), -1, 4), _COARSE), middle)
    likely = found.amax(dim=1) >= _LAYOUT
    result = torch.zeros(len(first))
    if likely.any():
        result[likely] = _detail_agreement(first[likely], second[likely], _PLACES[found.argmax(dim=1)][likely])
    return result


def _detail_agreement(first: Tensor, second: Tensor, place: Tensor) -> Tensor:
    """Compute the agreement of pairs [P, S, S], whose middles correlate at `place` [P, 4]: [P]."""
    pairs, unmoved = torch.arange(len(first)), _UNMOVED.expand(len(first), 1, 4)
    # 2) the best place around it
    middle = _sampled(second, unmoved, _MEDIUM)
    for step in _STEPS:
        places = place[:, None] + step * _NEIGHBOURS
        place = places[pairs, _correlation(_sampled(first, places, _MEDIUM), middle).argmax(dim=1)]
    # 3) the detail there
    found, middle = _sampled(first, place[:, None], _FINE), _sampled(second, unmoved, _FINE)
    return _correlation(_detail(found), _detail(middle))[:, 0]


def _halved(images: Tensor) -> Tensor:
    return avg_pool2d(images[:, None], 2)[:, 0]


def _sampled(images: Tensor, places: Tensor, side: int) -> Tensor:
    """Sample images [P, S, S] at places [P, W, 4]: [P, W, side, side].

    A place is two scales and two shifts, each vertical and horizontal; 1 is half the height or width.
    """
    count, each = places.shape[:2]
    high, wide, down, right = (places * torch.tensor([_MIDDLE, _MIDDLE, 1.0, 1.0])).reshape(-1, 4).unbind(dim=1)
    zero = torch.zeros_like(high)
    maps = torch.stack([wide, zero, right, zero, high, down], dim=1).reshape(-1, 2, 3)
    grid = affine_grid(maps, [count * each, 1, side, side], align_corners=False)
    grid = grid.reshape(count, each * side, side, 2)
    values = grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)
    return values.reshape(count, each, side, side)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Normalised correlation of [P, W, S, S] with [P, 1, S, S]: [P, W]; 0 where an image has a single level."""
    return (_standardised(first) * _standardised(second)).sum(dim=-1)


def _standardised(images: Tensor) -> Tensor:
    """Shift and scale [P, W, S, S] to mean 0 and norm 1: [P, W, S²]."""
    values = images.flatten(2)
    values = values - values.mean(dim=-1, keepdim=True)
    return values / (values.square().sum(dim=-1, keepdim=True) + values.shape[-1] * _NOISE).sqrt()


def _detail(images: Tensor) -> Tensor:
    """Subtract the local mean of [P, 1, S, S]."""
    margin = _BOX // 2
    return images - avg_pool2d(pad(images, (margin,) * 4, mode="replicate"), _BOX, stride=1)
