"""`MemorySource`: images and labels listed in memory, in a DataFrame, an Arrow table or a list of (path, label)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from visionadapt.errors import UsageError
from visionadapt.sources.table import FileTable
from visionadapt.sources.tables.paths import FilesAnywhere, FilesBelow
from visionadapt.sources.tables.readers import TableRow, arrow_columns, arrow_rows, texts

_BATCH = 4096


@dataclass(frozen=True, repr=False, eq=False)
class MemorySource(FileTable):
    """Images listed in memory: one row per image, as in `TableSource`.

    The rows are copied into an Arrow table, so that later changes of a DataFrame have no effect.

    Args:
        table: a pandas DataFrame; an Arrow table, or any object with `__arrow_c_stream__`, such as a polars DataFrame;
            or a list of `(path, label)` with the columns `image` and `label`, where a label is a string, a list of
            strings, or None.
        image: the column with the image's path, relative to `root` or absolute.
        {columns}
        root: the folder of the images, which no path may leave; by default the current folder, and absolute paths may
            be anywhere.
        max_bytes: larger image files are refused.

    Raises:
        UsageError: the table is of another kind.
        SourceError: `labels` or `max_bytes` is invalid. Missing columns are reported when the rows are first read.
    """

    table: Any
    image: str = "image"
    label: str | None = None
    _: KW_ONLY
    labels: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    root: str | Path | None = None
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        self._set(table=arrow_table(self.table), root=None if self.root is None else str(Path(self.root).absolute()))
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
        return kind(self.__dict__["_folder"], self.max_bytes)

    def _known_columns(self) -> Sequence[str]:
        return arrow_columns(self.table.schema)

    def _table_rows(self) -> Iterator[TableRow]:
        names = list(dict.fromkeys(self._known_columns()))
        return arrow_rows(names, self.table.to_batches(max_chunksize=_BATCH))


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


def _strings(columns: Any) -> Any:
    """An Arrow table with a list of strings in each cell."""
    import pyarrow as pa

    cells = [(name, pa.array([texts(cell) for cell in column], pa.list_(pa.string()))) for name, column in columns]
    return pa.table([array for _, array in cells], names=[name for name, _ in cells])


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
