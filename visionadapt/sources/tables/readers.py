"""Open a table's file according to its format: CSV, TSV, JSON, JSON Lines, Parquet or Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from visionadapt.sources.tables.arrow import ArrowFile, HeldImages, arrow_columns, image_columns
from visionadapt.sources.tables.delimited import DelimitedFile
from visionadapt.sources.tables.json_rows import JsonFile
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tables.several import SPLIT, ArrowFiles
from visionadapt.sources.tables.text_files import TextFiles

Format = Literal["csv", "tsv", "json", "jsonl", "parquet", "arrow"]

SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class TableFile:
    """A table in a file, or in several.

    Attributes:
        path: the file.
        format: what it is.
        delimiter: of a CSV or TSV file; None to find it.
        header: whether the first row of a CSV or TSV file names the columns.
        numbers: whether classes stay the numbers that they are in a Parquet or Arrow file whose metadata names them.
        files: all files, where there may be several; then `path` is not read.
        above: the folder that holds all of several files.
    """

    path: Path
    format: Format
    delimiter: str | None = None
    header: bool = True
    numbers: bool = False
    files: Sequence[Path] = ()
    above: Path = Path()

    def columns(self, named: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names of all columns but those of bytes; of JSON, every name in any row.

        `named` are dotted paths in JSON that count as columns where they lead to something. Of several files there may
        be one more, which tells the split.

        Raises:
            SourceError: a file cannot be read, or of several, one lacks a column of the others.
        """
        file = self._file
        if isinstance(file, ArrowFiles):
            return tuple(dict.fromkeys([*arrow_columns(file.schema), SPLIT]))
        if isinstance(file, ArrowFile):
            return tuple(arrow_columns(file.schema))
        return file.columns() if isinstance(file, DelimitedFile) else file.columns(named)

    def rows(self, named: Sequence[str] = ()) -> Iterator[TableRow]:
        """Yield every row; one that cannot be read (too few cells, no JSON object) with its problem.

        Raises:
            SourceError: the file cannot be read any further.
        """
        file = self._file
        if isinstance(file, ArrowFile | ArrowFiles):
            return file.rows(list(dict.fromkeys(self.columns())), named=not self.numbers)
        return file.rows() if isinstance(file, DelimitedFile) else file.rows(named)

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The columns that hold images themselves."""
        return tuple(image_columns(self._file.schema)) if isinstance(self._file, ArrowFile | ArrowFiles) else ()

    def images(self, column: str) -> HeldImages:
        """Return what reads the images that one of `image_columns` holds."""
        file = self._file
        if not isinstance(file, ArrowFile | ArrowFiles):
            raise TypeError(f"a {self.format} file holds no images")
        return HeldImages(file.schema, column, file.batches)

    @cached_property
    def _file(self) -> ArrowFile | ArrowFiles | JsonFile | DelimitedFile | TextFiles:
        if self.format in {"parquet", "arrow"}:
            kind: Literal["parquet", "arrow"] = "parquet" if self.format == "parquet" else "arrow"
            files = [ArrowFile(path, kind) for path in self.files]
            return ArrowFiles(files) if files else ArrowFile(self.path, kind)
        if self.files:
            each = [replace(self, path=path, files=()) for path in self.files]
            return TextFiles(each, self.above, sparse=self.format not in DELIMITERS)
        if self.format in {"json", "jsonl"}:
            return JsonFile(self.path, self.format == "jsonl")
        return DelimitedFile(self.path, DELIMITERS[self.format], self.delimiter, self.header)
