"""Read tables row by row, in constant memory: CSV, TSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from visionadapt.errors import SourceError
from visionadapt.system.text import utf8_safe

Format = Literal["csv", "tsv", "jsonl", "parquet"]
Cells = Mapping[str, tuple[str, ...]]

SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_BATCH = 4096
_WRONG_COUNT = "has {} cell{} where the header has {}"


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        place: where it is, such as `line 17`.
        cells: the strings of each column: none where the cell is empty, several where it is a list.
        problem: why the row cannot be read; None for all others.
    """

    place: str
    cells: Cells = field(default_factory=dict)
    problem: str | None = None

    def only(self, column: str | None) -> str | None:
        """Return the one string of a cell, without surrounding white space; None where it has none, or several."""
        cell = self.cells.get(column, ()) if column is not None else ()
        return (cell[0].strip() or None) if len(cell) == 1 else None


def table_rows(path: Path, table_format: Format, delimiter: str) -> Iterator[TableRow]:
    """Yield every row of a table; `delimiter` separates the cells of a CSV or TSV file.

    A row that cannot be read (too many or too few cells, no JSON object) is yielded with its problem.

    Raises:
        SourceError: the file cannot be read any further.
    """
    if table_format == "parquet":
        return _parquet_rows(path)
    return _json_rows(path) if table_format == "jsonl" else _delimited_rows(path, delimiter)


def table_columns(path: Path, table_format: Format, delimiter: str) -> tuple[str, ...]:
    """Return the names of a table's columns; of JSON Lines, every name in any row.

    Raises:
        SourceError: the file cannot be read.
    """
    if table_format == "parquet":
        with _parquet_file(path) as file:
            return tuple(arrow_columns(file.schema_arrow))
    if table_format == "jsonl":
        return tuple(dict.fromkeys(name for row in _json_rows(path) for name in row.cells))
    with _delimited(path, delimiter) as reader:
        return tuple(name.strip() for name in next(reader, []))


def texts(value: Any) -> tuple[str, ...]:
    """Return the value of a cell as strings: nothing for an empty one, None and NaN, several for a list."""
    if value is None or value == "" or value != value:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(text for part in value for text in texts(part))
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return (utf8_safe(str(value)),)


def _delimited_rows(path: Path, delimiter: str) -> Iterator[TableRow]:
    with _delimited(path, delimiter) as reader:
        header = [name.strip() for name in next(reader, [])]
        line = reader.line_num + 1
        for cells in reader:
            place, line = f"line {line}", reader.line_num + 1
            if len(cells) == len(header):
                yield TableRow(place, {name: (cell,) if cell else () for name, cell in zip(header, cells, strict=True)})
            elif cells:
                yield TableRow(place, problem=_WRONG_COUNT.format(len(cells), "s" * (len(cells) != 1), len(header)))


@contextmanager
def _delimited(path: Path, delimiter: str) -> Iterator[Any]:
    """A csv reader over UTF-8 with or without a byte order mark, and any line ends."""
    with _readable_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield reader
        except csv.Error as error:
            place = f"{path}, line {reader.line_num}"
            raise SourceError(f"{place}: cannot be read any further ({error}); correct its quotation marks") from error


def _json_rows(path: Path) -> Iterator[TableRow]:
    with _readable_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(f"line {number}", line)


def _json_row(place: str, line: bytes) -> TableRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return TableRow(place, problem=f"is no JSON ({error})")
    return json_row(place, value)


def json_row(place: str, value: Any) -> TableRow:
    """Return a JSON object as a row; for any other value, a row with a problem."""
    if not isinstance(value, dict):
        return TableRow(place, problem="is no JSON object")
    try:
        return TableRow(place, {(texts(name) or ("",))[0]: texts(cell) for name, cell in value.items()})
    except RecursionError:
        return TableRow(place, problem="has lists or objects in one another too deeply")


def _parquet_rows(path: Path) -> Iterator[TableRow]:
    with _parquet_file(path) as file:
        names = list(dict.fromkeys(arrow_columns(file.schema_arrow)))
        yield from arrow_rows(names, file.iter_batches(batch_size=_BATCH, columns=names))


def arrow_rows(names: Sequence[str], batches: Iterable[Any]) -> Iterator[TableRow]:
    """Yield the rows of Arrow record batches, with the cells of some columns."""
    number = 0
    for batch in batches:
        columns = [_values(batch.column(batch.schema.names.index(name))) for name in names]
        for cells in zip(*columns, strict=True):
            number += 1
            yield TableRow(f"row {number}", {name: texts(cell) for name, cell in zip(names, cells, strict=True)})


def _values(column: Any) -> list[Any]:
    """A column's values; as strings where one of them is a time that Python cannot represent exactly."""
    from pyarrow import duration, string, time64, timestamp, types

    kind = column.type
    try:
        if types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":  # else pandas decides
            zone = (kind.tz,) if types.is_timestamp(kind) else ()
            to = timestamp if zone else duration if types.is_duration(kind) else time64
            column = column.cast(to("us", *zone))
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):
        return list(column.cast(string()).to_pylist())


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with _readable_errors(path), ParquetFile(path) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise SourceError(f"{path} cannot be read as Parquet ({_line(error)})") from error


def arrow_columns(schema: Any) -> list[str]:
    """Return the columns that hold strings, numbers or lists of them; columns of bytes or structures are skipped."""
    from pyarrow import types

    def plain(kind: Any) -> bool:
        if hasattr(kind, "value_type"):  # a list or a dictionary
            return plain(kind.value_type)
        binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        return not (binary or types.is_nested(kind))

    return [column.name for column in schema if plain(column.type)]


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn errors of a table's file into one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}, line {_undecodable(path)}: is no UTF-8; save the table as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({_line(error)})") from error


def _undecodable(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        number = 0
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number


def _line(error: Exception) -> str:
    return cast(str, getattr(error, "strerror", None) or " ".join(str(error).split()))
