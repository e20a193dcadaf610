"""Files that several rows name: the first row counts, or none where their labels differ."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import stable_hash

Claim = tuple[str, str, frozenset[str] | None]
"""Key, place and labels of a row; None for labels that are dropped."""


@dataclass(frozen=True)
class Repeats:
    """The keys of a table that several rows have.

    Attributes:
        repeated: by the hash of its key, what the rows with it say.
        hashes: the hashes of all keys in ascending order; none where no key is repeated.
    """

    repeated: Mapping[int, _Repeat]
    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, hashes: array[int], claims: Callable[[], Iterable[Claim]]) -> Repeats:
        """Find them among the hashes of all keys; the claims of all rows are read only where there are any."""
        ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
        repeated = frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        found: dict[int, list[tuple[str, frozenset[str] | None]]] = {}
        for key, place, labels in claims() if repeated else ():
            number = stable_hash(key)
            if number in repeated:
                found.setdefault(number, []).append((place, labels))
        repeats = {number: _Repeat.of(rows) for number, rows in found.items()}
        return cls(repeats, ordered if repeated else ordered[:0].copy())

    def own_key(self, key: str, place: str, copies: Counter[int]) -> tuple[str, str | None]:
        """Return a key that no other row has, and why the row does not count; None where it does.

        Args:
            key: of the row, as the table has it.
            place: of the row.
            copies: empty before the first row; counts the numbers given to the keys of later ones.
        """
        repeat = self.repeated.get(stable_hash(key))
        if repeat is None:
            return key, None
        return key if place == repeat.place else self._numbered(key, copies), repeat.problem(place)

    def _numbered(self, key: str, copies: Counter[int]) -> str:
        """The key with the next number that makes it one that no row has."""
        number = stable_hash(key)
        while True:
            copies[number] += 1
            numbered = f"{key}#{copies[number] + 1}"
            found = stable_hash(numbered)
            place = int(np.searchsorted(self.hashes, np.uint64(found)))
            if place == len(self.hashes) or int(self.hashes[place]) != found:
                return numbered


@dataclass(frozen=True)
class _Repeat:
    """A key that several rows have: the place of the row that counts, and of the first two whose labels differ."""

    place: str
    clash: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[tuple[str, frozenset[str] | None]]) -> _Repeat:
        """From the place and the labels of each row."""
        used = [(place, labels) for place, labels in rows if labels is not None] or rows
        first = {labels: place for place, labels in reversed(used)}
        return cls(used[0][0], tuple(first[labels] for labels in dict.fromkeys(labels for _, labels in used))[:2])

    def problem(self, place: str) -> str | None:
        """Why the row at `place` does not count; None where it does."""
        if len(self.clash) > 1:
            return f"{' and '.join(self.clash)} give it different labels ({place})"
        return None if place == self.place else f"stands in {self.place} already ({place})"
