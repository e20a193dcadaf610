"""`TableSource`: pictures and labels that a CSV, TSV, JSON Lines or Parquet file names."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import SUFFIXES, Format, TableRow, table_columns, table_rows
from visionadapt.sources.tabular import Columns, TableFacts, only, settle

_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class TableSource:
    """Images that a table names: one row each, a column for the file, others for label, group and split.

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
        settled = {
            "path": str(self.path),
            "root": None if self.root is None else str(self.root),
            "format": self.format or SUFFIXES.get(Path(self.path).suffix.lower()),
            **settle(self),
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
        return self._columns.classes(self._facts)

    def __iter__(self) -> Iterator[Record]:
        return self._facts.told(self._records())

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        return FilesBelow(self._root, self.max_bytes).read(record.location or record.key, record.key)

    def version_of(self, record: Record) -> str | None:
        """What the file system says of the file, without reading it."""
        return FilesBelow(self._root, self.max_bytes).version(record.location or record.key)

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

    def _rows(self) -> Iterator[TableRow]:
        return table_rows(Path(self.path), self._format, self._delimiter)

    @property
    def _columns(self) -> Columns:
        return Columns.of(self, str(self.path))

    @cached_property
    def _facts(self) -> TableFacts:
        columns = self._columns
        columns.check(self.columns)
        return columns.facts(self._keyed_rows)

    def _keyed_rows(self) -> Iterator[tuple[str, TableRow]]:
        """Every row under the key of its file; where it names none, under its own place."""
        inside, title = FilesBelow(self._root, self.max_bytes), Path(self.path).name
        for row in self._rows():
            yield inside.key(only(row, self.image) or "") or f"{title}, {row.place}", row

    def _records(self) -> Iterator[tuple[str, Record]]:
        inside, columns = FilesBelow(self._root, self.max_bytes), self._columns
        for key, row in self._keyed_rows():
            yield row.place, columns.record(key, row, inside.find(only(row, self.image) or ""))


def _mode(path: Path, what: str) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        raise SourceError(f"no such {what}: {path}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"the {what} {path} cannot be read ({getattr(error, 'strerror', error)})") from error
