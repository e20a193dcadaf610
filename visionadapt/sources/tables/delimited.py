"""Read CSV and TSV files row by row: any delimiter, UTF-8 or UTF-16, with or without a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from visionadapt.errors import SourceError
from visionadapt.sources.tables.contents import encoding_of, kind_of, readable
from visionadapt.sources.tables.row import TableRow

_DELIMITERS = ",;\t|"
_LINE = 1 << 16
_DECLARED = re.compile(r'"?sep=(.)"?\r?\n?')
_WRONG_COUNT = "has {} cell{} where the header has {}"


@dataclass(frozen=True)
class DelimitedFile:
    """A CSV or TSV file.

    Attributes:
        path: the file.
        usual: the delimiter that the format usually has; another is used where a first line `sep=;` says so, or where
            only that other one divides the first row.
        delimiter: the delimiter; None to find it.
        header: whether the first row names the columns; without it, they are called `1`, `2`, ….
    """

    path: Path
    usual: str
    delimiter: str | None = None
    header: bool = True

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        with self._reader() as (reader, _):
            return self._names(_first(reader))

    def rows(self) -> Iterator[TableRow]:
        """Yield every row; one with too many or too few cells, or that repeats the header, with its problem."""
        with self._reader() as (reader, before):
            first = _first(reader)
            names = self._names(first)
            if first and not self.header:
                yield _row("line 1", names, first)
            line = before + reader.line_num + 1
            for cells in reader:
                place, line = f"line {line}", before + reader.line_num + 1
                if not _is_empty(cells, names):
                    repeated = self.header and cells == first
                    yield TableRow(place, problem="repeats the header") if repeated else _row(place, names, cells)

    def _names(self, first: Sequence[str]) -> tuple[str, ...]:
        if not self.header:
            return tuple(str(number) for number, _ in enumerate(first, 1))
        return tuple(name.strip() for name in first)

    @contextmanager
    def _reader(self) -> Iterator[tuple[Any, int]]:
        """A csv reader, and how many lines are before the ones that it reads."""
        path = self.path
        other = kind_of(path)
        if other is not None:
            raise SourceError(f"{path} {other}")
        with readable(path), path.open(encoding=encoding_of(path), newline="") as file:
            delimiter, before = self._opened(file)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                yield reader, before
            except csv.Error as error:
                place = f"{path}, line {before + reader.line_num}"
                raise SourceError(
                    f"{place}: cannot be read any further ({error}); correct its quotation marks"
                ) from error

    def _opened(self, file: TextIO) -> tuple[str, int]:
        """The delimiter, and how many lines come before the table; the file is left at its first row."""
        line = file.readline(_LINE)
        declared = _DECLARED.fullmatch(line)
        if declared is not None:
            return self.delimiter or declared[1], 1
        while line and not line.strip():
            line = file.readline(_LINE)
        file.seek(0)
        return self.delimiter or _delimiter(line, self.usual), 0


def _delimiter(line: str, usual: str) -> str:
    """The usual delimiter, unless only another one divides the line."""
    counts = {delimiter: _cells(line, delimiter) for delimiter in (usual, *_DELIMITERS)}
    return usual if counts[usual] > 1 else max(counts, key=lambda delimiter: counts[delimiter])


def _cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 1


def _first(reader: Any) -> list[str]:
    """The first row that is not empty."""
    return next((cells for cells in reader if any(cell.strip() for cell in cells)), [])


def _is_empty(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a line has no cell, or in a table of several columns only white space."""
    return not cells or (len(cells) == 1 < len(names) and not cells[0].strip())


def _row(place: str, names: Sequence[str], cells: Sequence[str]) -> TableRow:
    if len(cells) != len(names):
        return TableRow(place, problem=_WRONG_COUNT.format(len(cells), "s" * (len(cells) != 1), len(names)))
    return TableRow(place, {name: (cell,) if cell else () for name, cell in zip(names, cells, strict=True)})
