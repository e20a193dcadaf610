"""Find pairs of nearly equal images: every pair is compared in blocks, and those that are alike are aligned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionadapt.auditing.alignment import agreement
from visionadapt.auditing.fingerprints import HASH_BITS

ALIKE = 0.4
"""Likeness from which two images are aligned and compared."""

CONFIRMED = 0.84
"""Agreement from which two images are near duplicates; `docs/measurements/audit.md` describes how it was chosen."""

_FEW = 256
_PROJECTED = 128
_SLACK = 0.08
_ROWS, _COLUMNS = 1024, 8192
_PAIRS_AT_ONCE = 4096

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]


class Pairs(NamedTuple):
    """Pairs of rows, first < second, their agreement, and whether one is mirrored: arrays [P]."""

    first: Integers
    second: Integers
    score: Floats
    mirrored: npt.NDArray[np.bool_]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        """Select pairs by a mask, bool [P]."""
        return Pairs(self.first[chosen], self.second[chosen], self.score[chosen], self.mirrored[chosen])


def near_pairs(hashes: Bytes, lumas: Bytes, features: Floats, progress: Progress | None = None) -> Iterator[Pairs]:
    """Yield every pair of near duplicates, in blocks.

    The likeness of two rows is the cosine similarity of their features, minus 0.01 for every bit in which their
    perceptual hashes differ, or those of one and of the other's mirror image. The features are centred on the mean of
    all other rows, which removes what all images of a data set have in common. Pairs that are `ALIKE` are near
    duplicates where the fine detail of their thumbnails agrees (`alignment.agreement`): this is their score.

    The cost is O(N²). The hashes as ±1 and the features projected to 128 dimensions form one vector per row, so that
    matrix products find the candidates.

    Args:
        hashes: of the images and of their mirror images, uint8 [2, N, 16].
        lumas: uint8 [N, S, S].
        features: float32 [N, D].
        progress: called with the number of rows done and N.
    """
    total = features.sum(axis=0, dtype=np.float64).astype(np.float32)
    for candidates in _candidates(hashes, features, progress):
        for start in range(0, len(candidates), _PAIRS_AT_ONCE):
            first, second = candidates[start : start + _PAIRS_AT_ONCE].T
            differing, mirrored = (_differing_bits(hashes[0][first], some[second]) for some in hashes)
            likeness = _cosine(features, total, first, second)
            likeness -= np.minimum(differing, mirrored) / np.float32(100)
            pairs = Pairs(first, second, likeness, mirrored < differing).where(likeness >= ALIKE)
            pairs = pairs._replace(score=_agreement(lumas, pairs))
            pairs = pairs.where(pairs.score >= CONFIRMED)
            if len(pairs.score):
                yield pairs


def _agreement(lumas: Bytes, pairs: Pairs) -> Floats:
    second = lumas[pairs.second]
    return agreement(lumas[pairs.first], np.where(pairs.mirrored[:, None, None], second[:, :, ::-1], second))


def _candidates(hashes: Bytes, features: Floats, progress: Progress | None) -> Iterator[Integers]:
    """Pairs [P, 2] that may be alike; every pair where there are few rows."""
    count = len(features)
    if count <= _FEW:
        yield np.stack(np.triu_indices(count, 1), axis=1)
        if progress is not None:
            progress(count, count)
        return
    directions, (bits, mirrored) = _directions(features), map(_signs, hashes)
    lowest = ALIKE + HASH_BITS / 200 - _SLACK
    for top in range(0, count, _ROWS):
        rows = slice(top, top + _ROWS)
        for left in range(top, count, _COLUMNS):
            columns = slice(left, left + _COLUMNS)
            product = torch.maximum(bits[rows] @ bits[columns].T, bits[rows] @ mirrored[columns].T)
            product += directions[rows] @ directions[columns].T
            found = torch.nonzero(product >= lowest) + torch.tensor([top, left])
            yield found[found[:, 0] < found[:, 1]].numpy()
        if progress is not None:
            progress(min(top + _ROWS, count), count)


def _signs(hashes: Bytes) -> Tensor:
    """float32 [N, 128], whose products are 0.64 − 0.01 · (differing bits).

    With bits as ±1, the product of two hashes is 128 − 2 · (differing bits); divided by 200, 0.64 − differing / 100.
    """
    signs = torch.from_numpy(np.unpackbits(hashes, axis=1).astype(np.float32)) * 2 - 1
    return signs / math.sqrt(200)


def _directions(features: Floats) -> Tensor:
    """float32 [N, 128], whose products are the projected cosine."""
    dimensions = features.shape[1]
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(dimensions, min(_PROJECTED, dimensions), generator=generator)
    axes = torch.linalg.qr(spread).Q
    shift = torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32)) @ axes
    projected = torch.cat([torch.from_numpy(part) @ axes - shift for part in np.array_split(features, 64)])
    return torch.nn.functional.normalize(projected, dim=1)


def _cosine(features: Floats, total: Floats, first: Integers, second: Integers) -> Floats:
    """Cosine of each pair, centred on the mean of all other rows."""
    one, other = features[first], features[second]
    others = len(features) - 2
    centre = (total - one - other) / np.float32(max(others, 1)) * np.float32(others > 0)
    one, other = one - centre, other - centre
    lengths = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    cosine: Floats = (one * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosine


def _differing_bits(first: Bytes, second: Bytes) -> Floats:
    """Count the bits in which each two of [P, 16] differ."""
    differing: Floats = np.unpackbits(first ^ second, axis=1).sum(axis=1, dtype=np.float32)
    return differing
