"""Give rows their part (train, val or test) once and for all: rows that come later move none that were there before."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from visionadapt.core.naming import stable_hash
from visionadapt.errors import SplitError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Shares:
    """Which shares of each class are for validation and for test; the rest is trained on.

    Raises:
        SplitError: they leave nothing to train on.
    """

    val: float = 0.0
    test: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise SplitError(f"--val {self.val} and --test {self.test} must be shares that leave some to train on")

    @property
    def all(self) -> tuple[float, float, float]:
        """Those of train, val and test."""
        return (1 - self.val - self.test, self.val, self.test)


@dataclass(frozen=True)
class Placed:
    """What settles a row's part: its key, group and label, and the part that it has already."""

    key: str
    group: str | None
    label: str | None
    part: str | None


def allot(read: Callable[[], Iterable[Placed]], shares: Shares) -> Iterator[tuple[str, str]]:
    """Yield (key, part) for each row that has no part yet; `read` gives all rows, and is called twice.

    A new row of a group that has a part joins it. The other new groups are taken from the largest to the smallest,
    those of one size by their hash of (seed, name), and each goes where its classes lack most: where
    Σ (2n + m)·m / (s·N²) is least, with m the group's rows of a class, n those that the part has already, s the part's
    share and N all rows of the class. Of the new rows without a group, those of a class whose hash of (seed, key) is
    smallest fill up what validation and test lack of it: one row at least where the class has enough, and never the
    only one to train on. It takes 8 bytes a row, and one small object a group.
    """
    facts = _Counts(shares)
    for row in read():
        facts.add(row)
    facts.place_groups()
    limits = {label: facts.limits(label) for label in facts.hashes}
    for row in read():
        if row.part is None:
            alone = row.group is None
            side = _side(facts.hash(row), limits[row.label]) if alone else facts.side_of[str(row.group)]
            yield row.key, PARTS[side]


class _Counts:
    """What is known of all rows together.

    Attributes:
        load: how many rows of each class each part has.
        total: how many there are.
        side_of: the part of each group.
        hashes: of the new rows without a group, by class.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.load: list[Counter[str | None]] = [Counter() for _ in PARTS]
        self.total: Counter[str | None] = Counter()
        self.side_of: dict[str, int] = {}
        self.hashes: dict[str | None, array[int]] = {}
        self._counts: dict[str, Counter[str | None]] = {}

    def hash(self, row: Placed) -> int:
        return stable_hash(self.shares.seed, "part", row.key)

    def add(self, row: Placed) -> None:
        self.total[row.label] += 1
        if row.part is not None:
            side = PARTS.index(row.part)
            self.load[side][row.label] += 1
            if row.group is not None:
                self.side_of.setdefault(row.group, side)
        elif row.group is not None:
            self._counts.setdefault(row.group, Counter())[row.label] += 1
        else:
            self.hashes.setdefault(row.label, array("Q")).append(self.hash(row))

    def place_groups(self) -> None:
        """Settle the part of every group."""
        order = {group: stable_hash(self.shares.seed, "group", group) for group in self._counts}
        for group in sorted(order, key=lambda group: (-self._counts[group].total(), order[group], group)):
            counts = self._counts[group]
            side = self.side_of.setdefault(group, self._cheapest(counts))
            self.load[side].update(counts)

    def _cheapest(self, counts: Counter[str | None]) -> int:
        def rise(side: int) -> float:
            load, share = self.load[side], self.shares.all[side]
            return sum((2 * load[name] + m) * m / (share * self.total[name] ** 2) for name, m in counts.items())

        return min((side for side, share in enumerate(self.shares.all) if share > 0), key=rise)

    def limits(self, label: str | None) -> tuple[int, int]:
        """Which new rows of a class are for validation, and which for test: those with hashes below these."""
        hashes = sorted(self.hashes[label])
        free = len(hashes) - (not self.load[0][label])
        taken = 0
        limits = []
        for side, least in ((1, 2), (2, 3)):
            share = self.shares.all[side]
            wanted = max(round(self.total[label] * share), int(share > 0 and self.total[label] >= least))
            taken += min(max(wanted - self.load[side][label], 0), free - taken)
            limits.append(hashes[taken] if taken < len(hashes) else 1 << 63)
        return limits[0], limits[1]


def _side(number: int, limits: tuple[int, int]) -> int:
    return 1 if number < limits[0] else 2 if number < limits[1] else 0
