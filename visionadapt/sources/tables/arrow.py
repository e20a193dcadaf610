"""Read Parquet, Arrow and Feather files and tables in memory, some rows at a time; and the images that they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Literal

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.tables.contents import head_of, kind_of, line_of, readable
from visionadapt.sources.tables.row import TableRow, texts
from visionadapt.system.text import utf8_safe

_BATCH = 4096
_IMAGES = 32
"""Images read at once: this many are in memory."""

Batches = Callable[[Sequence[str], int, int], Iterator[tuple[int, Any]]]
"""From names of columns, a row and a size: batches of at most that many rows, each with the number of its first row
(from 1); the first one holds the row, or precedes it."""


@dataclass(frozen=True)
class ArrowFile:
    """A Parquet file, or an Arrow IPC file or stream (Feather is the former)."""

    path: Path
    format: Literal["parquet", "arrow"]

    @property
    def schema(self) -> Any:
        """The Arrow schema."""
        with self._opened() as file:
            schema = file.schema_arrow if self.format == "parquet" else file.schema
            arrow_columns(schema)  # a name that is no UTF-8 raises here
            return schema

    @property
    def row_count(self) -> int:
        """The number of rows."""
        with self._opened() as file:
            if self.format == "parquet":
                return int(file.metadata.num_rows)
            return sum(batch.num_rows for _, batch in _sliced(file, _BATCH))

    def rows(self, names: Sequence[str], named: bool = True) -> Iterator[TableRow]:
        """Yield the rows, with the cells of some columns; `named` replaces numbers of classes by `class_names`."""
        classes = class_names(self.schema) if named else {}
        return self._decoded(arrow_rows(names, (batch for _, batch in self.batches(names, 1, _BATCH)), classes))

    def batches(self, names: Sequence[str], row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield batches as `Batches` says."""
        with self._opened() as file:
            yield from _parquet_batches(file, names, row, size) if self.format == "parquet" else _sliced(file, size)

    def _decoded(self, rows: Iterator[TableRow]) -> Iterator[TableRow]:
        """Yield rows; a string that is no UTF-8, which Arrow does not look for, becomes one line."""
        try:
            yield from rows
        except UnicodeDecodeError as error:
            raise self._error(error) from error

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file; errors of Arrow become one line."""
        import pyarrow
        from pyarrow import ipc
        from pyarrow.parquet import ParquetFile

        try:
            with readable(self.path):
                if self.format == "parquet":
                    with ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as file:
                        yield file
                else:
                    with pyarrow.memory_map(str(self.path)) as mapped:
                        is_file = head_of(self.path).startswith(b"ARROW1")
                        yield ipc.open_file(mapped) if is_file else ipc.open_stream(mapped)
        except pyarrow.ArrowException as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> SourceError:
        what = "Parquet" if self.format == "parquet" else "Arrow"
        told = kind_of(self.path) or ""
        if told and f" {what} file" not in told:
            return SourceError(f"{self.path} {told}")
        return SourceError(f"{self.path} cannot be read as {what} ({line_of(error)})")


def arrow_columns(schema: Any) -> list[str]:
    """Return the columns that hold strings, numbers or lists of them; of a structure, the dotted paths of such parts.

    Columns of bytes are left out.
    """
    return [name for column in schema for name in _plain_columns(column.name, column.type)]


def image_columns(schema: Any) -> list[str]:
    """Return the columns that hold bytes, or structures of `bytes` and `path` as the Hugging Face Hub has them."""
    return [column.name for column in schema if _is_binary(column.type) or _is_binary(_part(column.type, "bytes"))]


def class_names(schema: Any) -> Mapping[str, Sequence[str]]:
    """Return the names of the classes that columns hold the numbers of, by column.

    They are the `ClassLabel` features, alone or in lists, in the metadata that the `datasets` library writes.
    """
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {str(name): _names(feature) for name, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if names}


def _names(feature: Any) -> list[str]:
    """Return the names of a feature, of what a list consists of, or nothing."""
    while isinstance(feature, list | dict) and feature:
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            return [utf8_safe(str(name)) for name in names] if isinstance(names, list) else []
        feature = feature[0] if isinstance(feature, list) else feature.get("feature")
    return []


def _named(cell: Any, names: Sequence[str]) -> Any:
    """Return a number as the name of its class; -1 is no label, and what is no number of a class stays."""
    if isinstance(cell, list):
        return [_named(part, names) for part in cell]
    if not isinstance(cell, int) or isinstance(cell, bool) or not -1 <= cell < len(names):
        return cell
    return names[cell] if cell >= 0 else None


def arrow_rows(
    names: Sequence[str], batches: Iterable[Any], classes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Iterator[TableRow]:
    """Yield the rows of Arrow record batches, with the cells of some columns, and names in place of class numbers."""
    number = 0
    for batch in batches:
        columns = [_values(_column(batch, name)) for name in names]
        for index, name in enumerate(names):
            if name in classes:
                columns[index] = [_named(cell, classes[name]) for cell in columns[index]]
        for cells in zip(*columns, strict=True) if columns else iter([()] * batch.num_rows):
            number += 1
            yield TableRow(f"row {number}", {name: texts(cell) for name, cell in zip(names, cells, strict=True)})


def table_batches(table: Any) -> Batches:
    """Return the `Batches` of a table in memory."""

    def batches(names: Sequence[str], row: int, size: int) -> Iterator[tuple[int, Any]]:
        for batch in table.slice(row - 1).to_batches(max_chunksize=size):
            yield row, batch
            row += batch.num_rows

    return batches


class HeldImages:
    """The images that a column holds, by the numbers of their rows; quick where they are read in ascending order."""

    def __init__(self, schema: Any, column: str, batches: Batches) -> None:
        self._held = f"{column}.bytes" if _part(schema.field(column).type, "bytes") is not None else column
        self.path_column = f"{column}.path" if _part(schema.field(column).type, "path") is not None else None
        self._batches, self._lock = batches, Lock()
        self._process, self._first = 0, 1
        self._images: Any = ()
        self._following: Iterator[tuple[int, Any]] = iter(())

    def read(self, row: int, key: str, max_bytes: int) -> bytes:
        """Return the bytes in a row (from 1); raise ImageError where there are none, or more than `max_bytes`."""
        with self._lock:
            self._go_to(row)
            found = self._images[row - self._first].as_py() if row < self._first + len(self._images) else None
        if not found:
            other = f"; image={self.path_column} names files" if self.path_column is not None else ""
            raise ImageError(key, f"{self._held!r} holds no bytes in row {row}{other}")
        if len(found) > max_bytes:
            raise ImageError(key, f"has {len(found):,} bytes, more than the limit max_bytes={max_bytes:,}")
        return bytes(found)

    def _go_to(self, row: int) -> None:
        if self._process != os.getpid() or row < self._first:  # a file that is open in two processes has one position
            self._process = os.getpid()
            self._following = self._batches([self._held], row, _IMAGES)
            self._first, self._images = row, ()
        while row >= self._first + len(self._images):
            first, batch = next(self._following, (0, None))
            if batch is None:
                self._first, self._images = row + 1, ()
                return
            self._first, self._images = first, _column(batch, self._held)


def _parquet_batches(file: Any, names: Sequence[str], row: int, size: int) -> Iterator[tuple[int, Any]]:
    first = 1
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row < first + count:
            for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=list(names), use_threads=False):
                yield first, batch
                first += batch.num_rows
        else:
            first += count


def _sliced(file: Any, size: int) -> Iterator[tuple[int, Any]]:
    """The batches of an Arrow file or stream."""
    first = 1
    count = getattr(file, "num_record_batches", None)
    for batch in (file.get_batch(number) for number in range(count)) if count is not None else file:
        batch.validate(full=True)  # otherwise wrong offsets are believed
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            yield first, part
            first += part.num_rows


def _column(batch: Any, name: str) -> Any:
    """A column, or a part of a structure by its dotted path."""
    from pyarrow import compute

    names = batch.schema.names
    if name in names:
        return batch.column(names.index(name))
    whole = max((other for other in names if name.startswith(f"{other}.")), key=len)
    return compute.struct_field(batch.column(names.index(whole)), name[len(whole) + 1 :].split("."))


def _plain_columns(name: str, kind: Any) -> list[str]:
    from pyarrow import types

    if types.is_struct(kind):
        return [path for part in kind for path in _plain_columns(f"{name}.{part.name}", part.type)]
    return [name] if _is_plain(kind) else []


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if hasattr(kind, "value_type"):  # a list or a dictionary
        return _is_plain(kind.value_type)
    return not (_is_binary(kind) or types.is_nested(kind))


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return kind is not None and any(test(kind) for test in tests)


def _part(kind: Any, name: str) -> Any:
    """The type of a part of a structure; None where there is no such part."""
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index(name) < 0:
        return None
    return kind.field(name).type


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
