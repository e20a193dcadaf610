"""`TableSource`: pictures and labels that a CSV, TSV, JSON Lines or Parquet file names."""

from __future__ import annotations

import dataclasses
import stat
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from visionadapt.errors import SourceError
from visionadapt.records import Record, natural_key, stable_hash
from visionadapt.sources.folder import SPLIT_FOLDERS
from visionadapt.sources.inside import Inside
from visionadapt.sources.rows import SUFFIXES, Format, Row, table_columns, table_rows
from visionadapt.spec import suggestion

_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class TableSource:
    """Pictures that a table names: one row each, a column for the file, others for label, group and split.

    Every row becomes a record, those that cannot be used with the problem and the place of the row: no such file, a
    path that leaves the folder, a broken row, a dropped label. A file that several rows name counts once, in its first
    row; where they give it different labels, in none. Rows that are dropped say nothing about a file's label. Labels
    are in Unicode NFC, without white space around them; an empty cell is no label, no group, no split.

    Args:
        path: the table. CSV and TSV in UTF-8 with a header; of Parquet, columns of bytes or structures are not read.
        image: the column with the picture's path, relative to `root` or absolute and below it.
        label: the column with the label; None takes the pictures as unlabelled.
        labels: other names for labels, such as `{"T-Shirt": "t-shirt"}`; the others stay as they are.
        drop: labels, as the table has them, whose rows are not used.
        group: the column of what must not be divided between training and validation.
        split: the column with train, val (validation, valid) or test, in any case.
        separator: what stands between several labels of one cell.
        root: the folder of the pictures; by default the table's own.
        format: csv, tsv, jsonl or parquet; by default as the file's name ends.
        delimiter: what stands between the cells of a CSV or TSV file; by default a comma or a tab.
        max_bytes: a larger picture file is refused.

    Raises:
        SourceError: the table or the folder is missing, or `format` or `delimiter` cannot be. Columns and labels that
            the table does not have are told when it is first read.
    """

    path: str | Path
    image: str
    label: str | None = None
    _: KW_ONLY
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    root: str | Path | None = None
    format: Format | None = None
    delimiter: str | None = None
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        drop = (self.drop,) if isinstance(self.drop, str) else self.drop
        settled = {
            "path": str(self.path),
            "root": None if self.root is None else str(self.root),
            "format": self.format or SUFFIXES.get(Path(self.path).suffix.lower()),
            "labels": {_clean(str(old)): _clean(str(new)) for old, new in self.labels.items()},
            "drop": tuple(_clean(str(name)) for name in drop),
            **{name: _text(getattr(self, name)) for name in ("image", "label", "group", "split")},
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        self._check()

    @property
    def name(self) -> str:
        """The table's name without its ending."""
        return Path(self.path).stem

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table."""
        return table_columns(Path(self.path), self._format, self._delimiter)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that are not dropped, in natural order; one that only test rows have does not count, where there
        are others.

        Raises:
            SourceError: no row has a label that `labels` or `drop` names.
        """
        facts = self._facts
        for option, names in (("labels", self.labels), ("drop", self.drop)):
            for name in names:
                if name not in facts.names:
                    known = ", ".join(sorted(facts.names, key=natural_key)) or "none"
                    raise SourceError(
                        f"{self.path}: no row has the label {name!r} that {option}= names"
                        f"{suggestion(name, facts.names)} (labels: {known})"
                    )
        return tuple(sorted(facts.classes, key=natural_key))

    def __iter__(self) -> Iterator[Record]:
        repeated = self._facts.repeated
        copies: Counter[int] = Counter()
        inside = Inside(self._root, self.max_bytes)
        for row in self._rows():
            record = self._record(row, inside)
            number = stable_hash(record.key)
            repeat = repeated.get(number)
            if repeat is not None and row.place != repeat.place:
                copies[number] += 1
                record = dataclasses.replace(record, key=f"{record.key}#{copies[number] + 1}")
            if repeat is not None and record.problem is None:
                record = dataclasses.replace(record, problem=repeat.problem(row.place))
            yield record

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        return Inside(self._root, self.max_bytes).read(record.location or record.key, record.key)

    def __str__(self) -> str:
        return str(self.path)

    def resolved(self) -> TableSource:
        """The same source, found from any working folder."""
        root = None if self.root is None else Path(self.root).absolute()
        return dataclasses.replace(self, path=Path(self.path).absolute(), root=root)

    @property
    def _root(self) -> Path:
        return Path(self.path).parent if self.root is None else Path(self.root)

    def _check(self) -> None:
        path, kinds = Path(self.path), get_args(Format)
        mode = _mode(path, "table")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path} is no regular file")
        if self.format not in kinds:
            raise SourceError(f"{path}: is it {', '.join(kinds[:-1])} or {kinds[-1]}? name it with format=")
        if not stat.S_ISDIR(_mode(self._root, "folder")):
            raise SourceError(f"root={self._root} is no folder")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.format not in _DELIMITERS):
            raise SourceError(f"{path}: delimiter={self.delimiter!r} must be one character, for CSV or TSV")
        if self.separator == "":
            raise SourceError(f"{path}: separator= must be a character or more, such as '|'")

    @property
    def _format(self) -> Format:
        return self.format or "csv"

    @property
    def _delimiter(self) -> str:
        return self.delimiter or _DELIMITERS.get(self._format, ",")

    def _rows(self) -> Iterator[Row]:
        return table_rows(Path(self.path), self._format, self._delimiter)

    @cached_property
    def _facts(self) -> _Facts:
        """What the whole table says, in one pass; in two where it names a file more than once."""
        self._check_columns(self.columns)
        names: set[str] = set()
        classes: dict[bool, set[str]] = {True: set(), False: set()}
        inside, keys = Inside(self._root, self.max_bytes), array("Q")
        for row in self._rows():
            labels, _ = self._labels(row)
            names.update(self._names(row))
            classes[self._split(row) == "test"].update(labels)
            keys.append(stable_hash(self._key(row, inside)))
        return _Facts(frozenset(names), frozenset(classes[False] or classes[True]), self._repeats(_repeated(keys)))

    def _repeats(self, numbers: frozenset[int]) -> dict[int, _Repeat]:
        """By the hash of its key: what the rows say that name a file more than once."""
        inside = Inside(self._root, self.max_bytes)
        found: dict[int, list[tuple[str, frozenset[str] | None]]] = {}
        for row in self._rows() if numbers else ():
            number = stable_hash(self._key(row, inside))
            if number in numbers:
                labels, dropped = self._labels(row)
                found.setdefault(number, []).append((row.place, None if dropped else frozenset(labels)))
        return {number: _Repeat.of(rows) for number, rows in found.items()}

    def _check_columns(self, columns: Sequence[str]) -> None:
        for option in ("image", "label", "group", "split"):
            name = getattr(self, option)
            if name is None or columns.count(name) == 1:
                continue
            what = "has two columns" if name in columns else "has no column"
            raise SourceError(
                f"{self.path} {what} {name!r}, which {option}= names{suggestion(name, set(columns) - {name})} "
                f"(columns: {', '.join(columns) or 'none'})"
            )

    def _record(self, row: Row, inside: Inside) -> Record:
        key = self._key(row, inside)
        if row.problem is not None:
            return Record(key, problem=f"{row.problem} ({row.place})")
        found = inside.find(_only(row, self.image) or "")
        labels, dropped = self._labels(row)
        problem = found.problem or (f"dropped: its label is {dropped!r}" if dropped is not None else None)
        assigned = {self.image, self.label, self.group, self.split, ""}
        return Record(
            key,
            labels,
            group=_only(row, self.group),
            split=self._split(row),
            location=None if found.problem else found.location,
            problem=None if problem is None else f"{problem} ({row.place})",
            columns={name: "; ".join(cell) for name, cell in row.cells.items() if cell and name not in assigned},
        )

    def _key(self, row: Row, inside: Inside) -> str:
        """The key of the row's file; where it names none, the row's own place."""
        return inside.key(_only(row, self.image) or "") or f"{Path(self.path).name}, {row.place}"

    def _names(self, row: Row) -> list[str]:
        """The row's labels as the table has them."""
        cells = row.cells.get(self.label, ()) if self.label is not None else ()
        parts = [part for cell in cells for part in (cell.split(self.separator) if self.separator else (cell,))]
        return [name for name in map(_clean, parts) if name]

    def _labels(self, row: Row) -> tuple[tuple[str, ...], str | None]:
        """The row's labels by their new names; where one of them is dropped, none, and the name of that one."""
        names = self._names(row)
        dropped = next((name for name in names if name in self.drop), None)
        if dropped is not None:
            return (), dropped
        return tuple(dict.fromkeys(self.labels.get(name, name) for name in names)), None

    def _split(self, row: Row) -> str | None:
        text = _only(row, self.split)
        if text is not None and text.casefold() not in SPLIT_FOLDERS:
            raise SourceError(
                f"{self.path}, {row.place}: {self.split!r} is {text!r}; it must be train, val (or validation, valid) "
                "or test"
            )
        return None if text is None else SPLIT_FOLDERS[text.casefold()]


@dataclass(frozen=True)
class _Facts:
    """What a whole table says: labels as it has them, classes, and by their keys' hash the files named repeatedly."""

    names: frozenset[str]
    classes: frozenset[str]
    repeated: Mapping[int, _Repeat]


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


def _mode(path: Path, what: str) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        raise SourceError(f"no such {what}: {path}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"the {what} {path} cannot be read ({getattr(error, 'strerror', error)})") from error


def _repeated(numbers: array[int]) -> frozenset[int]:
    """The numbers that occur more than once."""
    ordered = np.sort(np.frombuffer(numbers, dtype=np.uint64))
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _only(row: Row, column: str | None) -> str | None:
    """The one text of a cell, without white space around it; None where it has none, or several."""
    cell = row.cells.get(column, ()) if column is not None else ()
    return (cell[0].strip() or None) if len(cell) == 1 else None


def _clean(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _text(value: object) -> str | None:
    return None if value is None else str(value)
