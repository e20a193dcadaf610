"""Records and the packed manifest: which pictures there are, with which labels, held in bytes.

A source yields `Record`s. A `Manifest` packs them into a few flat arrays (ten million rows are ten million rows of
bytes, not of Python objects, so that a loader's workers share them and do not grow) and is the only random access.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, runtime_checkable

from visionadapt.core.columns import Categories, Columns, Labels, SparseStrings, Strings
from visionadapt.core.row_numbers import RowNumbers
from visionadapt.errors import SourceError


@dataclass(frozen=True)
class Record:
    """One row of a source.

    Attributes:
        key: what names the row: unique in its source, relative, POSIX separators, Unicode NFC.
        labels: class names; none for an unlabelled picture, one for most tasks, several for multi-label.
        group: rows of one group must not be divided between training and validation (a person, a patient, a scene).
        split: `train`, `val` or `test` where the source itself says so.
        location: where the source finds the bytes, where that is not the key itself.
        problem: why the source already refuses the row; None for all others.
        columns: further columns, as text.
    """

    key: str
    labels: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    location: str | None = None
    problem: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The label of a row that has at most one."""
        return self.labels[0] if self.labels else None


class Source(Protocol):
    """Where pictures and labels come from. Cheap to pickle: loader workers get a copy."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class name, in the order of the class indices."""

    def __iter__(self) -> Iterator[Record]: ...

    def read(self, record: Record) -> bytes:
        """Return the picture file's bytes; raise `ImageError` where they cannot be had."""


@runtime_checkable
class LocalSource(Protocol):
    """What a source whose paths may be relative has as well, so that a run can go on from any working folder."""

    @property
    def name(self) -> str:
        """What a run on it is called where the user gives no name."""

    def resolved(self) -> Source:
        """The same source with absolute paths."""


@runtime_checkable
class VersionedSource(Protocol):
    """What a source has as well that can tell whether a row's bytes are still the same without reading them."""

    def version_of(self, record: Record) -> str | None:
        """A text that is another one when the bytes are others; None where that cannot be told."""


@runtime_checkable
class FrozenSource(Protocol):
    """What a source whose rows never change has as well."""

    @property
    def fingerprint(self) -> str:
        """A hash of all rows, hex."""

    def manifest(self) -> Manifest:
        """The rows, packed already."""


class Manifest:
    """The rows of a source, packed; a selection of rows shares the columns with the whole.

    Attributes:
        source: what reads the rows' bytes.
        classes: class names in the order of the class indices.
    """

    def __init__(
        self, source: Source, records: Iterable[Record] | Columns, classes: Sequence[str] | None = None
    ) -> None:
        self.source = source
        self.classes = tuple(source.classes if classes is None else classes)
        self._columns = records if isinstance(records, Columns) else pack(records, self.classes)
        self._rows: Sequence[int] = range(self._columns.count)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} rows, {len(self.classes)} classes, {self.source!r})"

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        row, columns = self._rows[index], self._columns
        return Record(
            key=columns.keys[row],
            labels=tuple(self.classes[label] for label in columns.labels[row]),
            group=columns.groups[row],
            split=columns.splits[row],
            location=columns.locations.get(row),
            problem=columns.problems.get(row),
            columns={name: text for name, texts in columns.further.items() if (text := texts.get(row)) is not None},
        )

    def key(self, index: int) -> str:
        """The key of one row, without building its record."""
        return self._columns.keys[self._rows[index]]

    def label(self, index: int) -> int:
        """The class index of one row; −1 where it has none."""
        labels = self._columns.labels[self._rows[index]]
        return labels[0] if labels else -1

    def labels(self, index: int) -> Sequence[int]:
        """The class indices of one row: none, one or several."""
        return self._columns.labels[self._rows[index]]

    def group(self, index: int) -> str | None:
        """The group of one row; None where it has none."""
        return self._columns.groups[self._rows[index]]

    def split(self, index: int) -> str | None:
        """Which part one row says that it belongs to; None where it says nothing."""
        return self._columns.splits[self._rows[index]]

    def problem(self, index: int) -> str | None:
        """Why the source refuses one row; None where it does not."""
        return self._columns.problems.get(self._rows[index])

    def each_labels(self) -> Iterator[Sequence[int]]:
        """`labels` of every row, in less time than row by row; so are the others of this kind."""
        return self._columns.labels.each(self._rows)

    def each_group(self) -> Iterator[str | None]:
        """`group` of every row."""
        return self._columns.groups.each(self._rows)

    def each_split(self) -> Iterator[str | None]:
        """`split` of every row."""
        return self._columns.splits.each(self._rows)

    def each_problem(self) -> Iterator[str | None]:
        """`problem` of every row."""
        return self._columns.problems.each(self._rows)

    def read(self, index: int) -> bytes:
        """The picture file's bytes of one row, by way of the source."""
        return self.source.read(self[index])

    def select(self, indices: Iterable[int]) -> Manifest:
        """Return the rows at `indices`, in that order, sharing all columns."""
        part = object.__new__(Manifest)
        part.__dict__.update(self.__dict__)
        part._rows = _chosen(self._rows, indices)
        return part

    def with_classes(self, classes: Sequence[str]) -> Manifest:
        """Return the same rows with fewer classes, which must be the first of these and all that the rows have."""
        part = object.__new__(Manifest)
        part.__dict__.update(self.__dict__)
        part.classes = tuple(classes)
        return part

    def where(self, wanted: Callable[[Record], bool]) -> Manifest:
        """Return the rows that `wanted` says yes to."""
        return self.select(index for index, record in enumerate(self) if wanted(record))

    @property
    def has_several_labels(self) -> bool:
        """Whether any row of the source, selected or not, has several labels."""
        return any(len(labels) > 1 for labels in self._columns.labels.each(range(self._columns.count)))

    def class_counts(self) -> tuple[int, ...]:
        """How many rows each class has."""
        counts = Counter(chain.from_iterable(self.each_labels()))
        return tuple(counts[label] for label in range(len(self.classes)))


def manifest_of(rows: Source | Manifest) -> Manifest:
    """Return the manifest of a source; a manifest is returned as it is, and a frozen source has its own."""
    if isinstance(rows, Manifest):
        return rows
    return rows.manifest() if isinstance(rows, FrozenSource) else Manifest(rows, rows)


def pack(records: Iterable[Record], classes: Sequence[str]) -> Columns:
    """Pack records into columns in memory; raise SourceError where a record has a class that is not known."""
    index_of = {name: index for index, name in enumerate(classes)}
    keys, labels, groups, splits = Strings(), Labels(), Categories(), Categories()
    locations, problems = SparseStrings(), SparseStrings()
    further: dict[str, SparseStrings] = {}
    count = 0
    for row, record in enumerate(records):
        keys.append(record.key)
        labels.append(_indices(record, index_of))
        groups.append(record.group)
        splits.append(record.split)
        if record.location is not None and record.location != record.key:
            locations.append(row, record.location)
        if record.problem is not None:
            problems.append(row, record.problem)
        for name, text in record.columns.items():
            further.setdefault(name, SparseStrings()).append(row, text)
        count = row + 1
    return Columns(count, keys, labels, groups, splits, locations, problems, further)


def _indices(record: Record, index_of: Mapping[str, int]) -> list[int]:
    try:
        return [index_of[label] for label in record.labels]
    except KeyError as error:
        count = len(index_of)
        raise SourceError(f"{record.key}: class {error.args[0]!r} is none of the {count} classes known") from None


def _chosen(rows: Sequence[int], indices: Iterable[int]) -> Sequence[int]:
    """The row numbers at `indices`; a range of all rows stays one."""
    every = rows == range(len(rows))
    if every and isinstance(indices, range) and all(indices[end] in rows for end in (0, -1) if indices):
        return indices
    return RowNumbers(map(rows.__getitem__, indices))
