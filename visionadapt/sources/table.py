"""`TableSource`: images and labels listed in a CSV, TSV, JSON Lines or Parquet file."""

from __future__ import annotations

import dataclasses
import stat
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import get_args

from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import mode_of, text
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import SUFFIXES, Format, TableRow, table_columns, table_rows
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found

_DELIMITERS = {"csv": ",", "tsv": "\t"}


class FileTable(TabularSource):
    """Base of sources whose rows name files."""

    @property
    @abstractmethod
    def _files(self) -> FilesBelow:
        """The files that a row can name."""

    @abstractmethod
    def _table_rows(self) -> Iterator[TableRow]:
        """Yield the rows of the table."""

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        return self._files.read(record.location or record.key, record.key)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it."""
        return self._files.version(record.location or record.key)

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        """Every row under the key of its file; where it names none, under its own place."""
        files, title = self._files, Path(self._title).name
        for row in self._table_rows():
            path = row.only(self.image) or ""
            yield files.key(path) or f"{title}, {row.place}", row, files.find(path) if look else Found(path)


@dataclass(frozen=True, repr=False)
class TableSource(FileTable):
    """Images listed in a table: one row per image, a column for the file, others for label, group and split.

    Every row becomes a record, those that cannot be used with the problem and the place of the row: a missing file, a
    path that leaves the folder, a broken row, a dropped label. A file that several rows name counts once, in its first
    row; where they give it different labels, in none.

    Args:
        path: the table. CSV and TSV in UTF-8 with a header; columns of bytes or structures in Parquet are ignored.
        image: the column with the image's path, relative to `root` or absolute and below it.
        {columns}
        root: the folder of the images; by default the table's own.
        format: csv, tsv, jsonl or parquet; by default according to the file's suffix.
        delimiter: what separates the cells of a CSV or TSV file; by default a comma or a tab.
        max_bytes: larger image files are refused.

    Raises:
        SourceError: the table or the folder is missing, or `format` or `delimiter` is invalid. Missing columns and
            labels are reported when the table is first read.
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
        path, kinds = Path(str(self.path)), get_args(Format)
        suffix = path.suffix.lower()
        self._set(path=str(self.path), root=text(self.root), format=self.format or SUFFIXES.get(suffix))
        self._normalize_columns()
        if not stat.S_ISREG(mode_of("table", path)):
            raise SourceError(f"{path} is no regular file")
        if self.format not in kinds:
            raise SourceError(f"{path}: is it {', '.join(kinds[:-1])} or {kinds[-1]}? name it with format=")
        if not stat.S_ISDIR(mode_of("folder", self._root)):
            raise SourceError(f"root={self._root} is no folder")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.format not in _DELIMITERS):
            raise SourceError(f"{path}: delimiter={self.delimiter!r} must be one character, for CSV or TSV")

    @property
    def name(self) -> str:
        """The table's name without its suffix."""
        return Path(self.path).stem

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the table."""
        return table_columns(Path(self.path), *self._dialect)

    def __str__(self) -> str:
        return str(self.path)

    def resolved(self) -> TableSource:
        """Return the same source with absolute paths."""
        root = None if self.root is None else Path(self.root).absolute()
        return dataclasses.replace(self, path=Path(self.path).absolute(), root=root)

    @property
    def _root(self) -> Path:
        return Path(self.path).parent if self.root is None else Path(self.root)

    @property
    def _files(self) -> FilesBelow:
        return FilesBelow(self._root, self.max_bytes)

    @property
    def _dialect(self) -> tuple[Format, str]:
        kind = self.format or "csv"
        return kind, self.delimiter or _DELIMITERS.get(kind, ",")

    @property
    def _title(self) -> str:
        return str(self.path)

    def _known_columns(self) -> Sequence[str]:
        return self.columns

    def _table_rows(self) -> Iterator[TableRow]:
        return table_rows(Path(self.path), *self._dialect)
