"""Records, the sources that yield them, and the manifest that packs them.

A source yields `Record`s. A `Manifest` packs them into a few flat buffers, without a Python object per row, so that
worker processes share ten million rows and do not grow. It is the only random access.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, runtime_checkable

from visionadapt.core.columns import (
    Categories,
    Columns,
    Labels,
    NewBuffer,
    RowNumbers,
    SparseStrings,
    Strings,
    in_memory,
)
from visionadapt.errors import SourceError


@dataclass(frozen=True)
class Record:
    """One row of a source.

    Attributes:
        key: name of the row: unique in its source, relative, POSIX separators, Unicode NFC.
        labels: class names; none for an unlabelled image, one for most tasks, several for multi-label.
        group: rows of one group are never divided between training and validation (a person, a patient, a scene).
        split: `train`, `val` or `test` if the source assigns one.
        location: where the source finds the bytes, if not under the key.
        problem: why the source already rejects the row; None for all others.
        columns: further columns, as strings.
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
        """The first label; None if there is none."""
        return self.labels[0] if self.labels else None


class Source(Protocol):
    """Where images and labels come from. Cheap to pickle, since each worker process gets a copy."""

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names, in the order of the class indices."""

    def __iter__(self) -> Iterator[Record]: ...

    def read(self, record: Record) -> bytes:
        """Return the image file's bytes; raise `ImageError` if they cannot be read."""


@runtime_checkable
class LocalSource(Protocol):
    """A source that may have relative paths, and can make them absolute so that a run can be resumed from anywhere."""

    @property
    def name(self) -> str:
        """The default name of a run on this source."""

    def resolved(self) -> Source:
        """Return the same source with absolute paths."""


@runtime_checkable
class VersionedSource(Protocol):
    """A source that can detect changed bytes without reading them."""

    def version_of(self, record: Record) -> str | None:
        """Return a string that changes when the bytes do; None where there is none."""


@runtime_checkable
class RemoteSource(Protocol):
    """A source that waits for a store: it is asked for several rows at once, and need not be for some at all.

    Its connections do not survive a fork: processes that read it are started afresh.
    """

    @property
    def reads_ahead(self) -> int:
        """How many rows are worth reading at once; 0 where nothing is remote."""

    def identity_of(self, record: Record) -> str | None:
        """Return a hash, 64 hex digits, that other bytes cannot have, known without reading them; None without one."""


@runtime_checkable
class NotedSource(Protocol):
    """A source that has something to tell about what it took and left out, besides the problems of its rows."""

    def notes(self) -> Sequence[str]:
        """Return lines of text."""


@runtime_checkable
class FrozenSource(Protocol):
    """A source whose rows never change."""

    @property
    def fingerprint(self) -> str:
        """A hash of all rows, hex."""

    def manifest(self) -> Manifest:
        """Return the rows, already packed."""


class Manifest:
    """The rows of a source, packed; selections of rows share its columns.

    Attributes:
        source: reads the bytes of the rows.
        classes: class names in the order of the class indices.
    """

    def __init__(
        self, source: Source, records: Iterable[Record] | Columns, classes: Sequence[str] | None = None
    ) -> None:
        self.source = source
        self.classes = tuple(source.classes if classes is None else classes)
        self._columns = records if isinstance(records, Columns) else _packed(records, self.classes)
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
        """Return the key of one row, without building its record."""
        return self._columns.keys[self._rows[index]]

    def label(self, index: int) -> int:
        """Return the class index of one row; −1 where it has none."""
        labels = self._columns.labels[self._rows[index]]
        return labels[0] if labels else -1

    def labels(self, index: int) -> Sequence[int]:
        """Return the class indices of one row: none, one or several."""
        return self._columns.labels[self._rows[index]]

    def group(self, index: int) -> str | None:
        """Return the group of one row; None where it has none."""
        return self._columns.groups[self._rows[index]]

    def split(self, index: int) -> str | None:
        """Return the split that the source assigns to one row; None where it assigns none."""
        return self._columns.splits[self._rows[index]]

    def problem(self, index: int) -> str | None:
        """Return why the source rejects one row; None where it does not."""
        return self._columns.problems.get(self._rows[index])

    def each_labels(self) -> Iterator[Sequence[int]]:
        """Iterate over `labels` of all rows, faster than row by row; likewise below."""
        return self._columns.labels.each(self._rows)

    def each_group(self) -> Iterator[str | None]:
        """Iterate over `group` of all rows."""
        return self._columns.groups.each(self._rows)

    def each_split(self) -> Iterator[str | None]:
        """Iterate over `split` of all rows."""
        return self._columns.splits.each(self._rows)

    def each_problem(self) -> Iterator[str | None]:
        """Iterate over `problem` of all rows."""
        return self._columns.problems.each(self._rows)

    def read(self, index: int) -> bytes:
        """Return the image file's bytes of one row, as the source reads them."""
        return self.source.read(self[index])

    def select(self, indices: Iterable[int]) -> Manifest:
        """Return the rows at `indices`, in that order, sharing all columns."""
        part = copy(self)
        part._rows = _chosen(self._rows, indices)
        return part

    def including(self, other: Manifest, indices: Iterable[int]) -> Manifest:
        """Return these rows and those of another selection of the same source at `indices`, in the source's order."""
        part = object.__new__(Manifest)
        part.__dict__.update(self.__dict__)
        part._rows = RowNumbers(sorted({*self._rows, *map(other._rows.__getitem__, indices)}))
        return part

    def with_classes(self, classes: Sequence[str]) -> Manifest:
        """Return the same rows with fewer classes: the first ones, which include all that the rows have."""
        part = copy(self)
        part.classes = tuple(classes)
        return part

    def of(self, source: Source) -> Manifest:
        """Return the same rows, whose bytes another source reads: the same one from elsewhere."""
        part = copy(self)
        part.source = source
        return part

    def where(self, condition: Callable[[Record], bool]) -> Manifest:
        """Return the rows that meet a condition."""
        return self.select(index for index, record in enumerate(self) if condition(record))

    @property
    def has_several_labels(self) -> bool:
        """Whether any row of the source, selected or not, has several labels."""
        return any(len(labels) > 1 for labels in self._columns.labels.each(range(self._columns.count)))

    def class_counts(self) -> tuple[int, ...]:
        """Return the number of rows of each class."""
        counts = Counter(chain.from_iterable(self.each_labels()))
        return tuple(counts[label] for label in range(len(self.classes)))


class ColumnsBuilder:
    """Pack records into columns, one by one; a label that `index_of` lacks raises SourceError."""

    def __init__(self, index_of: Mapping[str, int], new: NewBuffer = in_memory) -> None:
        self.count = 0
        self._index_of, self._new = index_of, new
        self._keys, self._labels = Strings(new, "keys"), Labels(new)
        self._groups, self._splits = Categories(new, "groups"), Categories(new, "splits")
        self._locations, self._problems = SparseStrings(new, "locations"), SparseStrings(new, "problems")
        self.further: dict[str, SparseStrings] = {}

    def append(self, record: Record) -> None:
        """Add a row."""
        row, self.count = self.count, self.count + 1
        self._keys.append(record.key)
        self._labels.append(self._indices(record))
        self._groups.append(record.group)
        self._splits.append(record.split)
        if record.location is not None and record.location != record.key:
            self._locations.append(row, record.location)
        if record.problem is not None:
            self._problems.append(row, record.problem)
        for name, text in record.columns.items():
            if name not in self.further:
                self.further[name] = SparseStrings(self._new, f"further{len(self.further)}")
            self.further[name].append(row, text)

    def columns(self) -> Columns:
        """Return the columns of the rows so far."""
        columns = (self._keys, self._labels, self._groups, self._splits, self._locations, self._problems)
        return Columns(self.count, *columns, self.further)

    def _indices(self, record: Record) -> list[int]:
        try:
            return [self._index_of[label] for label in record.labels]
        except KeyError as error:
            known = len(self._index_of)
            raise SourceError(f"{record.key}: class {error.args[0]!r} is none of the {known} classes known") from None


def _packed(records: Iterable[Record], classes: Sequence[str]) -> Columns:
    builder = ColumnsBuilder({name: index for index, name in enumerate(classes)})
    for record in records:
        builder.append(record)
    return builder.columns()


def _chosen(rows: Sequence[int], indices: Iterable[int]) -> Sequence[int]:
    """Return the row numbers at `indices`; a range stays a range if all rows are selected."""
    every = rows == range(len(rows))
    if every and isinstance(indices, range) and all(indices[end] in rows for end in (0, -1) if indices):
        return indices
    return RowNumbers(map(rows.__getitem__, indices))
