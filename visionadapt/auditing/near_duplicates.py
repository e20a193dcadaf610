"""Find pairs of nearly equal images: every pair is compared, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionadapt.auditing.alignment import correlation
from visionadapt.auditing.fingerprints import HASH_BITS

THRESHOLD = 0.48
"""Score from which two images are near duplicates; `docs/guides/audit.md` describes how it was chosen."""

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
    """Pairs of rows, first < second, and their similarity: arrays [P]."""

    first: Integers
    second: Integers
    score: Floats

    def where(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        """Select pairs by a mask, bool [P]."""
        return Pairs(self.first[chosen], self.second[chosen], self.score[chosen])


def near_pairs(
    hashes: Bytes, lumas: Bytes, features: Floats, threshold: float = THRESHOLD, progress: Progress | None = None
) -> Iterator[Pairs]:
    """Yield every pair of rows whose score reaches `threshold`, in blocks.

    The score is the cosine similarity of the two rows' features, minus 0.01 for every bit in which their perceptual
    hashes differ, minus 4 · (1 − r), where r is the correlation of their thumbnails (`alignment.correlation`): 1 for
    copies, negative for unrelated images. The features are centred on the mean of all other rows, which removes what
    all images of a data set have in common.

    The cost is O(N²). The hashes as ±1 and the features projected to 128 dimensions form one vector per row, so that a
    single matrix product finds the candidates.

    Args:
        hashes: uint8 [N, 16].
        lumas: uint8 [N, 32, 32].
        features: float32 [N, D].
        threshold: the lowest score.
        progress: called with the number of rows done and N.
    """
    total = features.sum(axis=0, dtype=np.float64).astype(np.float32)
    for candidates in _candidates(hashes, features, threshold, progress):
        for start in range(0, len(candidates), _PAIRS_AT_ONCE):
            first, second = candidates[start : start + _PAIRS_AT_ONCE].T
            score = _cosine(features, total, first, second)
            score -= _differing_bits(hashes, first, second) / np.float32(100)
            pairs = Pairs(first, second, score).where(score >= threshold)
            lacking = 1 - correlation(lumas[pairs.first], lumas[pairs.second])
            pairs = pairs._replace(score=pairs.score - 4 * lacking)
            pairs = pairs.where(pairs.score >= threshold)
            if len(pairs.score):
                yield pairs


def _candidates(hashes: Bytes, features: Floats, threshold: float, progress: Progress | None) -> Iterator[Integers]:
    """Pairs [P, 2] that may reach the threshold; every pair where there are few rows."""
    count = len(features)
    if count <= _FEW:
        yield np.stack(np.triu_indices(count, 1), axis=1)
        if progress is not None:
            progress(count, count)
        return
    vectors = _vectors(hashes, features)
    lowest = threshold + HASH_BITS / 200 - _SLACK
    for top in range(0, count, _ROWS):
        rows = vectors[top : top + _ROWS]
        for left in range(top, count, _COLUMNS):
            product = rows @ vectors[left : left + _COLUMNS].T
            found = torch.nonzero(product >= lowest) + torch.tensor([top, left])
            yield found[found[:, 0] < found[:, 1]].numpy()
        if progress is not None:
            progress(min(top + _ROWS, count), count)


def _vectors(hashes: Bytes, features: Floats) -> Tensor:
    """float32 [N, 256], whose products are the projected cosine + 0.64 − 0.01 · (differing bits).

    With bits as ±1, the product of two hashes is 128 − 2 · (differing bits); divided by 200, 0.64 − differing / 100.
    """
    bits = torch.from_numpy(np.unpackbits(hashes, axis=1).astype(np.float32)) * 2 - 1
    dimensions = features.shape[1]
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(dimensions, min(_PROJECTED, dimensions), generator=generator)
    axes = torch.linalg.qr(spread).Q
    shift = torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32)) @ axes
    projected = torch.cat([torch.from_numpy(part) @ axes - shift for part in np.array_split(features, 64)])
    return torch.cat([torch.nn.functional.normalize(projected, dim=1), bits / 200**0.5], dim=1)


def _cosine(features: Floats, total: Floats, first: Integers, second: Integers) -> Floats:
    """Cosine of each pair, centred on the mean of all other rows."""
    one, other = features[first], features[second]
    others = len(features) - 2
    centre = (total - one - other) / np.float32(max(others, 1)) * np.float32(others > 0)
    one, other = one - centre, other - centre
    lengths = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    cosine: Floats = (one * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosine


def _differing_bits(hashes: Bytes, first: Integers, second: Integers) -> Floats:
    differing: Floats = np.unpackbits(hashes[first] ^ hashes[second], axis=1).sum(axis=1, dtype=np.float32)
    return differing
