"""Files that several rows name: the first row counts, or none where their labels differ, or all of them are one."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import stable_hash


class Claim(NamedTuple):
    """What a row says of its file.

    Attributes:
        key, place: of the row.
        labels: None where they are dropped or cannot be read.
        group, split: as in `Record`.
    """

    key: str
    place: str
    labels: tuple[str, ...] | None
    group: str | None = None
    split: str | None = None


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
    def of(cls, hashes: array[int], claims: Callable[[], Iterable[Claim]], merge: bool = False) -> Repeats:
        """Find them among the hashes of all keys; the claims of all rows are read only where there are any.

        With `merge`, rows of one file are one image, with the labels of all of them.
        """
        ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
        repeated = frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        found: dict[int, list[Claim]] = {}
        for claim in claims() if repeated else ():
            number = stable_hash(claim.key)
            if number in repeated:
                found.setdefault(number, []).append(claim)
        repeats = {number: _Repeat.of(rows, merge) for number, rows in found.items()}
        return cls(repeats, ordered if repeated else ordered[:0].copy())

    @property
    def merged(self) -> int:
        """How many rows are part of an earlier one."""
        return sum(repeat.merged for repeat in self.repeated.values())

    def is_merged(self, key: str, place: str) -> bool:
        """Whether a row whose labels count is part of an earlier one."""
        repeat = self.repeated.get(stable_hash(key))
        return repeat is not None and repeat.merged > 0 and place != repeat.place

    def labels(self, key: str, own: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels of the row that counts, whose own ones are given, with those of rows merged into it."""
        repeat = self.repeated.get(stable_hash(key))
        return repeat.labels if repeat is not None and repeat.merged else own

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
    """A key that several rows have.

    Attributes:
        place: of the row that counts.
        clash: the places of the first two rows that do not agree, and in what.
        labels: of all rows, where they are merged.
        merged: how many rows are part of the one that counts.
    """

    place: str
    clash: tuple[str, str, str] | None = None
    labels: tuple[str, ...] = ()
    merged: int = 0

    @classmethod
    def of(cls, claims: Sequence[Claim], merge: bool) -> _Repeat:
        """From what each row says."""
        used = [claim for claim in claims if claim.labels is not None] or claims
        labels = tuple(dict.fromkeys(label for claim in used for label in claim.labels or ()))
        place = used[0].place
        if merge:
            clash = _clash(used, lambda claim: (claim.group, claim.split))
            merged = 0 if clash or used[0].labels is None else len(used) - 1
            return cls(place, clash and (*clash, "groups or splits"), labels, merged)
        clash = _clash(used, lambda claim: frozenset(claim.labels or ()))
        return cls(place, clash and (*clash, "labels; if it has all of them, give merge=true"))

    def problem(self, place: str) -> str | None:
        """Why the row at `place` does not count; None where it does."""
        if self.clash is not None:
            return f"{self.clash[0]} and {self.clash[1]} give it different {self.clash[2]} ({place})"
        return None if place == self.place else f"stands in {self.place} already ({place})"


def _clash(claims: Sequence[Claim], said: Callable[[Claim], Hashable]) -> tuple[str, str] | None:
    """The places of the first two rows that say different things."""
    first = said(claims[0])
    other = next((claim.place for claim in claims if said(claim) != first), None)
    return None if other is None else (claims[0].place, other)
