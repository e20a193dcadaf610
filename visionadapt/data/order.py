"""The order of the rows in an epoch: all of them, in constant memory, or as many of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from visionadapt.core.naming import stable_hash

_ROUNDS = 10
_BLOCK = 1 << 15


class Shuffle(Sequence[int]):
    """A permutation of range(rows) that depends only on (seed, epoch); read by index or slice.

    Up to 32,768 rows are permuted by `torch.randperm`. More are permuted by an alternating Feistel network on
    numbers with as many bits as `rows` needs (10 rounds, as in FF1 of NIST SP 800-38G, with a fast mixing function
    instead of AES), applied again until the number is a row: cycle walking (Black and Rogaway, "Ciphers with Arbitrary
    Finite Domains", 2002), at most two steps on average. One block of 32,768 rows is cached, in about 1 MB.
    """

    def __init__(self, rows: int, seed: int, epoch: int) -> None:
        self._rows = rows
        self._block: tuple[int, list[int]] = (-1, [])
        if rows <= _BLOCK:
            generator = torch.Generator().manual_seed(stable_hash(seed, "order", epoch))
            self._block = (0, torch.randperm(rows, generator=generator).tolist())
        bits = max((rows - 1).bit_length(), 1)
        self._low_bits = np.uint64(bits // 2)
        self._masks = (np.uint64((1 << (bits // 2)) - 1), np.uint64((1 << (bits - bits // 2)) - 1))
        self._keys = [np.uint64(stable_hash(seed, "order", epoch, number)) for number in range(_ROUNDS)]

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: Any) -> Any:
        """Return the row at an index, or the rows of a slice as a list; raise IndexError like a list."""
        if isinstance(place, slice):
            return self._slice(range(self._rows)[place])
        return self._of_block(range(self._rows)[place])

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self._rows, _BLOCK):
            yield from self[start : start + _BLOCK]

    def _slice(self, places: range) -> list[int]:
        """Return the rows at some places; short runs come from the cached block."""
        if places and places.step == 1 and places[0] // _BLOCK == places[-1] // _BLOCK:
            self._of_block(places[0])
            return self._block[1][places[0] % _BLOCK : places[-1] % _BLOCK + 1]
        if self._rows <= _BLOCK:
            return [self._block[1][place] for place in places]
        return self._at(np.arange(places.start, places.stop, places.step))

    def _of_block(self, place: int) -> int:
        start = place - place % _BLOCK
        if self._block[0] != start:
            self._block = (start, self._at(np.arange(start, min(start + _BLOCK, self._rows))))
        return self._block[1][place - start]

    def _at(self, places: NDArray[np.int64]) -> list[int]:
        found = self._mixed(places.astype(np.uint64))
        while (outside := np.flatnonzero(found >= self._rows)).size:
            found[outside] = self._mixed(found[outside])
        rows: list[int] = found.tolist()
        return rows

    def _mixed(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Permute numbers of fixed bit length: each half in turn is changed by a function of the other."""
        halves = [numbers & self._masks[0], numbers >> self._low_bits]
        for number, key in enumerate(self._keys):
            own = number % 2
            halves[own] = halves[own] ^ (_mixing(halves[1 - own], key) & self._masks[own])
        return halves[0] | (halves[1] << self._low_bits)


def order_of(rows: int, seed: int, epoch: int, labels: Tensor | None = None) -> Sequence[int]:
    """Return the rows of an epoch in order: all of them, or with labels int64 [N] the classes equally often."""
    return Shuffle(rows, seed, epoch) if labels is None else balanced_order(labels, seed, epoch)


def balanced_order(labels: Tensor, seed: int, epoch: int) -> list[int]:
    """Return as many rows as there are, of each class the same number up to one, in random order.

    A row of a class is repeated only when all of its class are used, and the rows of a large class take turns over the
    epochs at random. It depends only on the labels int64 [N], the seed and the epoch.
    """
    generator = torch.Generator().manual_seed(stable_hash(seed, "balanced order", epoch))
    classes = [(labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))]
    more = set(torch.randperm(len(classes), generator=generator)[: len(labels) % len(classes)].tolist())
    drawn = []
    for number, own in enumerate(classes):
        wanted = len(labels) // len(classes) + (number in more)
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-wanted // len(own)))]
        drawn.append(torch.cat([own[:0], *rounds])[:wanted])
    chosen = torch.cat(drawn)
    rows: list[int] = chosen[torch.randperm(len(chosen), generator=generator)].tolist()
    return rows


class EpochSampler(Sampler[tuple[int, int]]):
    """Yield (epoch, row): every pass is the next epoch, shuffled or in the rows' own order."""

    def __init__(self, rows: int, seed: int, shuffle: bool) -> None:
        self._rows, self._seed, self._shuffle = rows, seed, shuffle
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        order = Shuffle(self._rows, self._seed, epoch) if self._shuffle else range(self._rows)
        return ((epoch, row) for row in order)


def _mixing(numbers: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = numbers ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
