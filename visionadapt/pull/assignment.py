"""Assign rows to train, val or test for good: rows that are added later move none of the earlier ones."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from visionadapt.core.naming import stable_hash
from visionadapt.errors import SplitError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shares:
    """The shares of each class for validation and test; raise SplitError if they leave nothing to train on."""

    val: float = 0.0
    test: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise SplitError(f"--val {self.val} and --test {self.test} must be shares that leave some to train on")

    @property
    def all(self) -> tuple[float, float, float]:
        """The shares of train, val and test."""
        return (1 - self.val - self.test, self.val, self.test)


@dataclass(frozen=True)
class AssignableRow:
    """What a row's split depends on: its key, group and label, and the split that it has already."""

    key: str
    group: str | None
    label: str | None
    split: str | None


def assign(read: Callable[[], Iterable[AssignableRow]], shares: Shares) -> Iterator[tuple[str, str]]:
    """Yield (key, split) for each row that has no split yet; `read` returns all rows, and is called twice.

    A new row of a group that has a split joins it. The other new groups are taken from the largest to the smallest,
    those of one size by their hash of (seed, name), and each goes where its classes lack most: where
    Σ (2n + m)·m / (s·N²) is least, with m the group's rows of a class, n those already in the split, s the split's
    share and N all rows of the class. Of the new rows without a group, those of a class whose hash of (seed, key) is
    smallest fill up what validation and test lack of it: at least one row if the class has enough, and never the only
    one to train on. Memory: 8 bytes per row, and one small object per group.
    """
    counts = _Counts(shares)
    for row in read():
        counts.add(row)
    counts.place_groups()
    limits = {label: counts.limits(label) for label in counts.hashes}
    for row in read():
        if row.split is None and row.group is not None:
            yield row.key, SPLITS[counts.split_of[row.group]]
        elif row.split is None:
            below_val, below_test = limits[row.label]
            number = counts.hash(row)
            yield row.key, "val" if number < below_val else "test" if number < below_test else "train"


class _Counts:
    """What is known of all rows together; splits are numbers, as in `SPLITS`.

    `load` counts the rows of each class in each split, `total` all rows of each class; `split_of` has the split of each
    group, `hashes` those of the new rows without a group, by class.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.load: list[Counter[str | None]] = [Counter() for _ in SPLITS]
        self.total: Counter[str | None] = Counter()
        self.split_of: dict[str, int] = {}
        self.hashes: dict[str | None, array[int]] = {}
        self._groups: dict[str, Counter[str | None]] = {}

    def hash(self, row: AssignableRow) -> int:
        return stable_hash(self.shares.seed, "part", row.key)

    def add(self, row: AssignableRow) -> None:
        self.total[row.label] += 1
        if row.split is not None:
            split = SPLITS.index(row.split)
            self.load[split][row.label] += 1
            if row.group is not None:
                self.split_of.setdefault(row.group, split)
        elif row.group is not None:
            self._groups.setdefault(row.group, Counter())[row.label] += 1
        else:
            self.hashes.setdefault(row.label, array("Q")).append(self.hash(row))

    def place_groups(self) -> None:
        """Assign every group to a split."""
        order = {group: stable_hash(self.shares.seed, "group", group) for group in self._groups}
        for group in sorted(order, key=lambda group: (-self._groups[group].total(), order[group], group)):
            counts = self._groups[group]
            self.load[self.split_of.setdefault(group, self._cheapest(counts))].update(counts)

    def _cheapest(self, counts: Counter[str | None]) -> int:
        def rise(split: int) -> float:
            load, share = self.load[split], self.shares.all[split]
            return sum((2 * load[name] + m) * m / (share * self.total[name] ** 2) for name, m in counts.items())

        return min((split for split, share in enumerate(self.shares.all) if share > 0), key=rise)

    def limits(self, label: str | None) -> tuple[int, int]:
        """Return the limits below which the hashes of a class's new rows are for validation, and for test."""
        hashes = sorted(self.hashes[label])
        free = len(hashes) - (not self.load[0][label])
        taken = 0
        limits = []
        for split, least in ((1, 2), (2, 3)):
            share = self.shares.all[split]
            target = max(round(self.total[label] * share), int(share > 0 and self.total[label] >= least))
            taken += min(max(target - self.load[split][label], 0), free - taken)
            limits.append(hashes[taken] if taken < len(hashes) else 1 << 63)
        return limits[0], limits[1]
