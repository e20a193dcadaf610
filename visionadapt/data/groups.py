"""Assign groups of rows to splits so that each split gets its share of every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from visionadapt.core.naming import stable_hash

_MOST_PASSES = 10


@dataclass(frozen=True)
class Group:
    """Rows that stay together.

    Attributes:
        order: the hash of (seed, name).
        rows: their indices in the manifest.
        counts: number of usable rows of each class.
    """

    order: int
    rows: tuple[int, ...]
    counts: Mapping[int, int]


class Sides:
    """Assignment of groups to two or more splits ("sides").

    In the given order, each group goes to the side where it raises Σ (n − t)² / (s·N²) least: n usable rows of a class
    on the side, t = s·N their target number, s the side's share, N all rows of the class, so that all classes count
    alike; a hash breaks ties. Then single groups move, from last to first, as long as that lowers the sum. Finally, for
    each class on a single side that has several groups, one of them moves.

    Attributes:
        side_of: the side of each group.
        holders: for each class, the indices of the groups that have rows of it.
    """

    def __init__(self, groups: Sequence[Group], shares: Sequence[float]) -> None:
        self.groups, self.shares = groups, shares
        self.side_of = [0] * len(groups)
        self.holders: dict[int, list[int]] = {}
        self._total: Counter[int] = Counter()
        self._load: list[Counter[int]] = [Counter() for _ in shares]
        for place, group in enumerate(groups):
            self._total.update(group.counts)
            for label in group.counts:
                self.holders.setdefault(label, []).append(place)

    def balance(self, fixed: Set[int] = frozenset()) -> None:
        """Assign every group to a side; groups with an index in `fixed` go to the first."""
        for place, group in enumerate(self.groups):
            self.side_of[place] = 0 if place in fixed else self._cheapest(group)
            self._load[self.side_of[place]].update(group.counts)
        free = [place for place in reversed(range(len(self.groups))) if place not in fixed]
        for _ in range(_MOST_PASSES):
            if not sum(self._improve(place) for place in free):
                break
        self._spread_all(fixed)

    def take(self, side_of: Sequence[int], fixed: Set[int] = frozenset()) -> None:
        """Adopt given sides, except the first for groups in `fixed`; move only groups of classes on a single side."""
        for place, group in enumerate(self.groups):
            self.side_of[place] = 0 if place in fixed else side_of[place]
            self._load[self.side_of[place]].update(group.counts)
        self._spread_all(fixed)

    def _spread_all(self, fixed: Set[int]) -> None:
        for label, places in sorted(self.holders.items()):
            if label >= 0 and len(self._sides_with(label)) == 1:
                self._spread(label, [place for place in places if place not in fixed])

    def _cheapest(self, group: Group) -> int:
        return min(range(len(self.shares)), key=lambda side: (self._rise(group, side), stable_hash(group.order, side)))

    def _rise(self, group: Group, side: int) -> float:
        """Return by how much a group raises the sum on a side, without the terms common to all sides."""
        load, share = self._load[side], self.shares[side]
        return sum((2 * load[label] + n) * n / (share * self._total[label] ** 2) for label, n in group.counts.items())

    def _move(self, place: int, side: int) -> None:
        self._load[self.side_of[place]].subtract(self.groups[place].counts)
        self._load[side].update(self.groups[place].counts)
        self.side_of[place] = side

    def _improve(self, place: int) -> bool:
        """Move a group to the best side; return whether it moved."""
        group, own = self.groups[place], self.side_of[place]
        self._load[own].subtract(group.counts)
        rises = [self._rise(group, side) for side in range(len(self.shares))]
        self._load[own].update(group.counts)
        best = min(range(len(rises)), key=lambda side: (rises[side], side != own))
        if rises[best] < rises[own]:
            self._move(place, best)
        return self.side_of[place] != own

    def _spread(self, label: int, places: Sequence[int]) -> None:
        """Move the cheapest group that brings a class to a second side and leaves no other class with a single one."""
        moves = []
        for place in places:
            group, own = self.groups[place], self.side_of[place]
            needed = {other: min(len(self._sides_with(other)), 2) for other in group.counts if other >= 0} | {label: 2}
            for side in range(len(self.shares)):
                self._move(place, side)
                if all(len(self._sides_with(other)) >= count for other, count in needed.items()):
                    moves.append((self._rise(group, side) - self._rise(group, own), group.order, place, side))
                self._move(place, own)
        if moves:
            _, _, place, side = min(moves)
            self._move(place, side)

    def _sides_with(self, label: int) -> list[int]:
        return [side for side, load in enumerate(self._load) if load[label] > 0]
