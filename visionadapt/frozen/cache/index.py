"""Find an identity's row among millions: sorted numbers in two arrays, not one object per row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 32
"""Bytes of an identity, a cryptographic hash; the first eight are uniform and nearly always unique."""

_TAIL = 1 << 20


class Identities:
    """A growing table identity → row, in the order of a file of identities; the first row of an identity counts.

    It takes twelve bytes of memory per row, shared by loader workers. Equal prefixes are resolved by reading the file,
    32 bytes per row, which may be missing while there are no rows.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.count = 0
        self._beginnings: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._order: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._tail: dict[bytes, int] = {}

    def __len__(self) -> int:
        return self.count

    def grow(self, count: int) -> None:
        """Add the file's rows that are not yet known, up to `count` in total."""
        if count - self.count + len(self._tail) > _TAIL:
            self._sort(count)
        elif count > self.count:
            self.add(row.tobytes() for row in self._rows(count)[self.count :])

    def add(self, identities: Iterable[bytes]) -> None:
        """Add the next rows, which are in the file or about to be."""
        for identity in identities:
            self._tail.setdefault(identity, self.count)
            self.count += 1

    def get(self, identity: bytes) -> int | None:
        """Return the row of an identity, or None."""
        return next(self._matches(identity), self._tail.get(identity))

    def __contains__(self, identity: object) -> bool:
        return isinstance(identity, bytes) and self.get(identity) is not None

    def __getitem__(self, identity: bytes) -> int:
        row = self.get(identity)
        if row is None:
            raise KeyError(identity.hex())
        return row

    def _matches(self, identity: bytes) -> Iterator[int]:
        """Yield the sorted rows with this identity, in ascending order."""
        if not len(self._order):
            return
        beginning = np.frombuffer(identity[:8], np.uint64)[0]
        start, stop = (int(np.searchsorted(self._beginnings, beginning, side)) for side in ("left", "right"))
        if start == stop:
            return
        with self.file.open("rb", buffering=0) as file:
            for row in self._order[start:stop].tolist():
                file.seek(row * ID_BYTES)
                if file.read(ID_BYTES) == identity:
                    yield row

    def _sort(self, count: int) -> None:
        beginnings = np.ascontiguousarray(self._rows(count)[:, :8]).view(np.uint64).ravel()
        order = np.argsort(beginnings, kind="stable")
        self._beginnings, self._order = beginnings[order], order.astype(np.uint32)
        self._tail = {}
        self.count = count

    def _rows(self, count: int) -> NDArray[np.uint8]:
        return np.memmap(self.file, np.uint8, "r", shape=(count, ID_BYTES))


@dataclass(frozen=True)
class KnownBefore:
    """The identities in the first `count` rows, however many are added later."""

    rows: Identities
    count: int

    def __contains__(self, identity: object) -> bool:
        row = self.rows.get(identity) if isinstance(identity, bytes) else None
        return row is not None and row < self.count
