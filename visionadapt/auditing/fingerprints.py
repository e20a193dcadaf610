"""Fingerprints that copies of an image share: a digest of the pixels, and a perceptual hash."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

HASH_BITS = 128

SIDE = 64
"""Height and width of a `thumbnail` in pixels."""

_CELLS = 8
_LONGEST = 256
_LUMA = (0.299, 0.587, 0.114)
_BLANK = 2.0
_CLEARLY = 1.0


def pixel_digest(pixels: Tensor) -> str:
    """Return a digest of size and pixels, uint8 [3, H, W]: equal for the same image in another file."""
    digest = hashlib.blake2b(str(tuple(pixels.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()).data)
    return digest.hexdigest()


def reduced(pixels: Tensor) -> Tensor:
    """Reduce uint8 [3, H, W] to at most 256 pixels per side, antialiased; smaller images are returned unchanged."""
    height, width = pixels.shape[1:]
    scale = _LONGEST / max(height, width)
    if scale >= 1:
        return pixels
    small: Tensor = functional.resize(pixels, [max(round(side * scale), 1) for side in (height, width)], antialias=True)
    return small


def luma_of(pixels: Tensor) -> Tensor:
    """Compute the luma (ITU-R BT.601) float32 [H, W] in 0–255 of uint8 [3, H, W]."""
    return torch.einsum("chw,c->hw", pixels.float(), torch.tensor(_LUMA))


def thumbnail(pixels: Tensor) -> Tensor:
    """Compute the `luma_of` [64, 64] in 0–255 of uint8 [3, H, W], squashed and antialiased."""
    return luma_of(functional.resize(pixels, [SIDE, SIDE], antialias=True))


def difference_hash(luma: Tensor) -> npt.NDArray[np.uint8]:
    """Compute the perceptual hash of a `thumbnail`: 128 bits as uint8 [16].

    64 bits are set where a cell of an 8 × 8 grid is darker than the one to its right by more than one level, 64 where
    it is darker than the one below (dHash: N. Krawetz, "Kind of Like That", 2013, in both directions). Changes of
    brightness and contrast leave nearly all bits as they are, and a crop of a few per cent changes some; between
    unrelated images about half of them differ.
    """
    across = functional.resize(luma[None], [_CELLS, _CELLS + 1], antialias=True)[0]
    down = functional.resize(luma[None], [_CELLS + 1, _CELLS], antialias=True)[0]
    bits = torch.cat([(across.diff(dim=1) > _CLEARLY).flatten(), (down.diff(dim=0) > _CLEARLY).flatten()])
    return np.packbits(bits.numpy())


def is_blank(luma: Tensor) -> bool:
    """Return whether a `thumbnail` has a standard deviation of less than 2 of 255 levels."""
    return float(luma.std()) < _BLANK
