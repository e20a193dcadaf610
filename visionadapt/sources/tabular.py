"""What the columns of a table say of its rows, wherever it lies: labels, group, split, and files named twice."""

from __future__ import annotations

import dataclasses
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import natural_key, stable_hash
from visionadapt.core.records import Record
from visionadapt.core.spec import suggestion
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, mapping
from visionadapt.sources.split_names import SPLIT_FOLDERS
from visionadapt.sources.tables.readers import TableRow
from visionadapt.sources.walk import Found

KeyedRows = Iterable[tuple[str, TableRow]]


@dataclass(frozen=True)
class Columns:
    """Which column says what, and what becomes of the labels.

    Labels are in Unicode NFC, without white space around them; an empty cell is no label, no group, no split.

    Attributes:
        title: the table's name, with which every message begins.
        image, label, group, split: names of columns; None where there is none.
        labels: other names for labels; those not mentioned stay as they are.
        drop: labels, as the table has them, whose rows are not used.
        separator: what stands between several labels of one cell.
    """

    title: str
    image: str
    label: str | None = None
    group: str | None = None
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    separator: str | None = None

    @classmethod
    def of(cls, source: Any, title: str) -> Columns:
        """From a source whose fields have the same names, after `settle`."""
        own = [item.name for item in dataclasses.fields(cls) if item.name != "title"]
        return cls(title, **{name: getattr(source, name) for name in own})

    def check(self, known: Sequence[str]) -> None:
        """Raise SourceError where a column is not among those that are known, or is there twice."""
        if self.image is None:
            raise SourceError(f"{self.title}: image= must name a column (columns: {', '.join(known) or 'none'})")
        for option in ("image", "label", "group", "split"):
            check_column(self.title, option, getattr(self, option), known)

    def names(self, row: TableRow) -> list[str]:
        """The row's labels as the table has them."""
        cells = row.cells.get(self.label, ()) if self.label is not None else ()
        parts = [part for cell in cells for part in (cell.split(self.separator) if self.separator else (cell,))]
        return [name for name in map(clean, parts) if name]

    def labels_of(self, row: TableRow) -> tuple[tuple[str, ...], str | None]:
        """The row's labels by their new names; where one of them is dropped, none, and the name of that one."""
        names = self.names(row)
        dropped = next((name for name in names if name in self.drop), None)
        if dropped is not None:
            return (), dropped
        return tuple(dict.fromkeys(self.labels.get(name, name) for name in names)), None

    def split_of(self, row: TableRow) -> str | None:
        """`train`, `val` or `test`; None where the cell is empty; raise SourceError for anything else."""
        text = only(row, self.split)
        if text is not None and text.casefold() not in SPLIT_FOLDERS:
            raise SourceError(
                f"{self.title}, {row.place}: {self.split!r} is {text!r}; it must be train, val (or validation, valid) "
                "or test"
            )
        return None if text is None else SPLIT_FOLDERS[text.casefold()]

    def record(self, key: str, row: TableRow, found: Found) -> Record:
        """The row as a record, whose bytes are at `found`; its problem tells the row's place."""
        if row.problem is not None:
            return Record(key, problem=f"{row.problem} ({row.place})")
        labels, dropped = self.labels_of(row)
        problem = found.problem or (f"dropped: its label is {dropped!r}" if dropped is not None else None)
        assigned = {self.image, self.label, self.group, self.split, ""}
        return Record(
            key,
            labels,
            group=only(row, self.group),
            split=self.split_of(row),
            location=None if found.problem else found.location,
            problem=None if problem is None else f"{problem} ({row.place})",
            columns={name: "; ".join(cell) for name, cell in row.cells.items() if cell and name not in assigned},
        )

    def facts(self, rows: Callable[[], KeyedRows]) -> TableFacts:
        """What the whole table says, in one pass over (key, row); in two where it names a key more than once."""
        names: set[str] = set()
        classes: dict[bool, set[str]] = {True: set(), False: set()}
        keys = array("Q")
        for key, row in rows():
            labels, _ = self.labels_of(row)
            names.update(self.names(row))
            classes[self.split_of(row) == "test"].update(labels)
            keys.append(stable_hash(key))
        ordered = np.sort(np.frombuffer(keys, dtype=np.uint64))
        repeated = _repeated(ordered)
        repeats = self._repeats(rows(), repeated) if repeated else {}
        kept = ordered if repeated else ordered[:0].copy()
        return TableFacts(frozenset(names), frozenset(classes[False] or classes[True]), repeats, kept)

    def classes(self, facts: TableFacts) -> tuple[str, ...]:
        """The labels that are not dropped, in natural order; one that only test rows have does not count, where there
        are others.

        Raises:
            SourceError: no row has a label that `labels` or `drop` names.
        """
        for option, names in (("labels", self.labels), ("drop", self.drop)):
            for name in names:
                if name not in facts.names:
                    known = ", ".join(sorted(facts.names, key=natural_key)) or "none"
                    raise SourceError(
                        f"{self.title}: no row has the label {name!r} that {option}= names"
                        f"{suggestion(name, facts.names)} (labels: {known})"
                    )
        return tuple(sorted(facts.classes, key=natural_key))

    def _repeats(self, rows: KeyedRows, numbers: frozenset[int]) -> dict[int, _Repeat]:
        """By the hash of its key: what the rows say that name a key more than once."""
        found: dict[int, list[tuple[str, frozenset[str] | None]]] = {}
        for key, row in rows:
            number = stable_hash(key)
            if number in numbers:
                labels, dropped = self.labels_of(row)
                found.setdefault(number, []).append((row.place, None if dropped else frozenset(labels)))
        return {number: _Repeat.of(places) for number, places in found.items()}


@dataclass(frozen=True)
class TableFacts:
    """What a whole table says: labels as it has them, classes, and by their keys' hash the files named repeatedly.

    Attributes:
        keys: the hashes of all keys in ascending order, where some file is named repeatedly.
    """

    names: frozenset[str]
    classes: frozenset[str]
    repeated: Mapping[int, _Repeat]
    keys: NDArray[np.uint64]

    def told(self, records: Iterable[tuple[str, Record]]) -> Iterator[Record]:
        """The records of (place, record), each under a key of its own; repeated ones with a problem."""
        copies: Counter[int] = Counter()
        for place, record in records:
            number = stable_hash(record.key)
            repeat = self.repeated.get(number)
            if repeat is None:
                yield record
                continue
            problem = record.problem or repeat.problem(place)
            key = record.key
            if place != repeat.place:
                key = self._numbered(key, copies)
            yield dataclasses.replace(record, key=key, problem=problem)

    def _numbered(self, key: str, copies: Counter[int]) -> str:
        """The key with the next number that makes it one that no row has."""
        number = stable_hash(key)
        while True:
            copies[number] += 1
            numbered = f"{key}#{copies[number] + 1}"
            found = stable_hash(numbered)
            place = int(np.searchsorted(self.keys, np.uint64(found)))
            if place == len(self.keys) or int(self.keys[place]) != found:
                return numbered


@dataclass(frozen=True)
class _Repeat:
    """A file that several rows name: the row that counts, and the places of rows whose labels differ."""

    place: str
    clash: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[tuple[str, frozenset[str] | None]]) -> _Repeat:
        """From the place and the labels of each row; None for labels that are dropped."""
        used = [(place, labels) for place, labels in rows if labels is not None] or rows
        first = {labels: place for place, labels in reversed(used)}
        return cls(used[0][0], tuple(first[labels] for labels in dict.fromkeys(labels for _, labels in used))[:2])

    def problem(self, place: str) -> str | None:
        """Why the row at `place` does not count."""
        if len(self.clash) > 1:
            return f"{' and '.join(self.clash)} give it different labels ({place})"
        return None if place == self.place else f"stands in {self.place} already ({place})"


def settle(source: Any) -> dict[str, Any]:
    """The fields of a source that `Columns.of` takes, as texts without stray white space; for its `__post_init__`."""
    drop = (source.drop,) if isinstance(source.drop, str) else source.drop
    labels = mapping("labels", source.labels)
    emptied = next((old for old, new in labels.items() if not clean(new)), None)
    if emptied is not None:
        raise SourceError(f"labels= gives {emptied!r} an empty name; leave its rows out by drop=[{emptied}]")
    check_size("max_bytes", source.max_bytes)
    return {
        "labels": {clean(old): clean(new) for old, new in labels.items()},
        "drop": tuple(clean(str(name)) for name in drop),
        **{name: _text(getattr(source, name)) for name in ("image", "label", "group", "split", "separator")},
    }


def check_column(title: str, option: str, name: str | None, known: Sequence[str]) -> None:
    """Raise SourceError where the column that an option names is not among those that are known, or is there twice."""
    if name is None or known.count(name) == 1:
        return
    what = "has two columns" if name in known else "has no column"
    raise SourceError(
        f"{title} {what} {name!r}, which {option}= names{suggestion(name, set(known) - {name})} "
        f"(columns: {', '.join(known) or 'none'})"
    )


def only(row: TableRow, column: str | None) -> str | None:
    """The one text of a cell, without white space around it; None where it has none, or several."""
    cell = row.cells.get(column, ()) if column is not None else ()
    return (cell[0].strip() or None) if len(cell) == 1 else None


def clean(name: str) -> str:
    """A label as it is compared: in Unicode NFC, without white space around it."""
    return unicodedata.normalize("NFC", name.strip())


def _repeated(ordered: NDArray[np.uint64]) -> frozenset[int]:
    """The numbers that occur more than once, from all in ascending order."""
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _text(value: object) -> str | None:
    return None if value is None else str(value)
