"""`MemorySource`: images and labels listed in memory, in a DataFrame, an Arrow table or a list of (path, label)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from visionadapt.errors import UsageError
from visionadapt.sources.arguments import text
from visionadapt.sources.file_table import FileTable
from visionadapt.sources.tables.arrow import (
    HeldImages,
    arrow_columns,
    arrow_rows,
    class_names,
    image_columns,
    table_batches,
)
from visionadapt.sources.tables.paths import FilesAnywhere, FilesBelow
from visionadapt.sources.tables.row import TableRow, texts

_BATCH = 4096
_SAMPLE = 100


@dataclass(frozen=True, repr=False, eq=False)
class MemorySource(FileTable):
    """Images listed in memory: one row per image, as in `TableSource`.

    The rows are copied into an Arrow table, so that later changes of a DataFrame have no effect.

    Args:
        table: a pandas DataFrame; an Arrow table, or any object with `__arrow_c_stream__`, such as a polars DataFrame;
            or a list of `(path, label)` with the columns `image` and `label`, where a label is a string, a list of
            strings, or None.
        image: the column with the image's path, relative to `root` or absolute; or with the image's bytes, plain or in
            a structure (a dict) of `bytes` and `path`.
        {columns}
        root: the folder of the images, which no path may leave; by default the current folder, and absolute paths may
            be anywhere.
        suffix: ends the names of the images, such as `.jpg`; added to paths without it.
        max_bytes: larger image files are refused.

    Raises:
        UsageError: the table is of another kind.
        SourceError: `labels` or `max_bytes` is invalid. Missing columns are reported when the rows are first read.
    """

    table: Any
    image: str = "image"
    label: str | Sequence[str] | None = None
    _: KW_ONLY
    labels: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    merge: bool = False
    root: str | Path | None = None
    suffix: str | None = None
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        root = None if self.root is None else str(Path(self.root).expanduser().absolute())
        self._set(table=arrow_table(self.table), root=root, suffix=text(self.suffix))
        self._set(_folder=self.root or os.getcwd())  # noqa: PTH109 - where relative paths are now, also in workers
        self._normalize_columns()

    def __str__(self) -> str:
        return self._title

    def __repr__(self) -> str:
        return f"MemorySource({self.table.num_rows:,} rows, image={self.image!r}, label={self.label!r})"

    @property
    def _title(self) -> str:
        return "the table in memory"

    @property
    def _files(self) -> FilesBelow:
        kind = FilesBelow if self.root is not None else FilesAnywhere
        return kind(self.__dict__["_folder"], self.max_bytes, self.suffix)

    def _with(self, options: Mapping[str, Any]) -> str:
        return f"sources.MemorySource(table, {super()._with(options)})"

    def _known_columns(self) -> Sequence[str]:
        return arrow_columns(self.table.schema)

    def _image_columns(self) -> Sequence[str]:
        return image_columns(self.table.schema)

    def _held(self) -> HeldImages | None:
        held = self.image in self._image_columns() and self.image not in self._known_columns()
        return HeldImages(self.table.schema, self.image, table_batches(self.table)) if held else None

    def _first_rows(self) -> Iterable[TableRow]:
        return list(islice(self._table_rows(), _SAMPLE))

    def _table_rows(self) -> Iterator[TableRow]:
        names = list(dict.fromkeys(self._known_columns()))
        return arrow_rows(names, self.table.to_batches(max_chunksize=_BATCH), class_names(self.table.schema))


def is_table(value: Any) -> bool:
    """Whether a value is a DataFrame or an Arrow table."""
    return hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def _is_pandas(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "columns")


def arrow_table(table: Any) -> Any:
    """Return a DataFrame, a list of (path, label) or an Arrow table as an Arrow table; raise UsageError for others."""
    import pyarrow as pa

    if isinstance(table, (list, tuple)):
        pairs = [_pair(number, row) for number, row in enumerate(table, 1)]
        return _strings({"image": [path for path, _ in pairs], "label": [label for _, label in pairs]}.items())
    if _is_pandas(table):  # not by way of Arrow, which refuses columns of paths or of mixed types
        return _strings((str(name), _cells(table.iloc[:, place])) for place, name in enumerate(table.columns))
    if hasattr(table, "__arrow_c_stream__"):
        return pa.table(table)
    raise UsageError(
        f"a table must be a DataFrame, an Arrow table or a list of (path, label), not {type(table).__name__}"
    )


def _strings(columns: Iterable[tuple[str, Sequence[Any]]]) -> Any:
    """An Arrow table with a list of strings in each cell; images that a column holds stay as they are."""
    import pyarrow as pa

    def array(cells: Sequence[Any]) -> Any:
        held = _images(cells)
        return held if held is not None else pa.array([texts(cell) for cell in cells], pa.list_(pa.string()))

    arrays = [(name, array(cells)) for name, cells in columns]
    return pa.table([cells for _, cells in arrays], names=[name for name, _ in arrays])


def _images(column: Sequence[Any]) -> Any:
    """A column of bytes, or of dicts with `bytes` and perhaps a `path`, as an Arrow array; None for others."""
    import pyarrow as pa

    some = [cell for cell in column if cell is not None]
    if some and all(isinstance(cell, bytes) for cell in some):
        return pa.array(column, pa.binary())
    if some and all(isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes) for cell in some):
        kept = [cell and {"bytes": cell["bytes"], "path": next(iter(texts(cell.get("path"))), None)} for cell in column]
        return pa.array(kept, pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))
    return None


def _cells(column: Any) -> list[Any]:
    """The values of a pandas column as Python objects; None for missing ones."""
    values = zip(column.tolist(), column.isna().tolist(), strict=True)
    return [None if missing else value.tolist() if hasattr(value, "tolist") else value for value, missing in values]


def _pair(number: int, row: Any) -> tuple[str, Any]:
    if not (isinstance(row, (tuple, list)) and len(row) == 2 and isinstance(row[0], (str, os.PathLike))):
        raise UsageError(f"row {number} of the list is {row!r:.80}; every row must be (path, label)")
    path, label = os.fspath(row[0]), row[1]
    if label is not None and not isinstance(label, (str, list, tuple)):
        raise UsageError(f"row {number} of the list has the label {label!r:.80}; it must be a string, a list or None")
    return path, label
