"""Summarise a split in one line: how many images on each side, and what is odd about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visionadapt.core.naming import near_duplicate_classes
from visionadapt.core.records import Manifest, NotedSource
from visionadapt.data.splits import has_several_labels
from visionadapt.system.text import counted, percent

_NAMED = 3


@dataclass(frozen=True)
class SplitReport:
    """Summary of a split; `str` gives one line.

    Attributes:
        train, val: number of usable rows in each split.
        asked: requested share for validation; None if the rows themselves are marked.
        shares: share of each class in validation, in [0, 1].
        groups: number of groups.
        divided: groups in both splits, which only marked rows can cause.
        several: whether some row has several labels.
        alike: classes that are surely one, such as `Cat` and `cat`; see `core.naming.near_duplicate_classes`.
        notes: what the source tells about what it took and left out.
    """

    train: int
    val: int
    asked: float | None
    shares: Mapping[str, float]
    groups: int
    divided: tuple[str, ...]
    several: bool = False
    alike: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, train: Manifest, val: Manifest, asked: float | None = None) -> SplitReport:
        """Summarise two splits; `asked` is the requested share of the second."""
        parts = [_usable(train), _usable(val)]
        counts = [part.class_counts() for part in parts]
        groups = [set(part.each_group()) - {None} for part in (train, val)]
        own = "val" in val.each_split()
        return cls(
            train=len(parts[0]),
            val=len(parts[1]),
            asked=None if own else asked,
            shares={
                name: second / (first + second)
                for name, first, second in zip(train.classes, *counts, strict=True)
                if first + second
            },
            groups=len(groups[0] | groups[1]),
            divided=tuple(sorted(str(name) for name in groups[0] & groups[1])),
            several=has_several_labels(train) or has_several_labels(val),
            alike=near_duplicate_classes(train.classes),
            notes=tuple(train.source.notes()) if isinstance(train.source, NotedSource) else (),
        )

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without validation images."""
        return tuple(name for name, share in self.shares.items() if not share)

    def __str__(self) -> str:
        share = self.val / max(self.train + self.val, 1)
        parts = [f"{counted(self.train, 'image')} to train on, {self.val:,} ({percent(share)}) to validate with"]
        if self.groups and not self.divided:
            parts.append(f"no group of {self.groups:,} on both sides")
        if self.divided:
            divided = counted(len(self.divided), "group")
            parts.append(f"{divided} of {self.groups:,} on both sides, as the rows themselves say")
        if (self.groups or self.several) and self.asked is not None and self.shares:
            low, high = min(self.shares.values()), max(self.shares.values())
            parts.append(f"{percent(low)} to {percent(high)} of a class, where {percent(self.asked)} was asked for")
        if self.absent:
            parts.append(f"no image to validate {', '.join(self.absent)} with")
        if self.alike:
            named = ", ".join(" and ".join(map(repr, names)) for names in self.alike[:_NAMED])
            more = f", and {len(self.alike) - _NAMED} more" if len(self.alike) > _NAMED else ""
            parts.append(f"warning: classes that are surely one: {named}{more}; give them one name")
        return "; ".join([*parts, *self.notes])


def _usable(rows: Manifest) -> Manifest:
    return rows.select(index for index, problem in enumerate(rows.each_problem()) if problem is None)
