"""`ManifestSource`: rows and bytes that `visionadapt pull` has frozen; bytes are checked as they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import check_size
from visionadapt.sources.pulled.packed import MappedColumns, open_columns
from visionadapt.sources.pulled.rows import MANIFEST, PACKED, Fingerprint, FrozenRow, location_of, tie_of
from visionadapt.sources.pulled.sections import different_texts
from visionadapt.system.storage import read_file, replacing

_KEY = b"visionadapt"
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class ManifestSource:
    """The rows of a folder that `visionadapt pull` has made.

    `manifest()` is there at once however many rows there are, and shared by workers: it maps `manifest.packed`. Where
    that is missing, or was not written with the `manifest.parquet` there, the rows are read from the latter.

    Args:
        path: the folder.
        max_bytes: a larger file is refused.

    Raises:
        SourceError: the folder is missing, or holds no manifest.
    """

    path: str | Path
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        check_size("max_bytes", self.max_bytes)
        if not (Path(self.path) / MANIFEST).is_file():
            raise SourceError(f"{self.path} holds no {MANIFEST}; make one with: visionadapt pull SOURCE --out FOLDER")

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return ManifestSource, (self.path, self.max_bytes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the source that was frozen."""
        return self._mapped.classes if self._mapped is not None else self._facts.classes

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.path).resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """The hash of all rows; whatever is changed in the manifest changes it."""
        if self._mapped is not None:
            return self._mapped.fingerprint
        whole = Fingerprint(self._facts.classes)
        for row in frozen_rows(self._parquet):
            whole.add(row)
        return whole.hexdigest()

    def resolved(self) -> ManifestSource:
        """The same source, found from any working folder."""
        return ManifestSource(Path(self.path).absolute(), self.max_bytes)

    def manifest(self) -> Manifest:
        """The rows, packed. Its classes are those of `classes`, and behind them what only test rows have."""
        if self._mapped is not None:
            return Manifest(self, self._mapped, self._mapped.names)
        names = dict.fromkeys([*self.classes, *(label for row in self for label in row.labels)])
        return Manifest(self, self, tuple(names))

    def __iter__(self) -> Iterator[Record]:
        if self._mapped is not None:
            yield from self.manifest()
        else:
            yield from (row.record() for row in frozen_rows(self._parquet))

    def read(self, record: Record) -> bytes:
        """Return the bytes that were frozen.

        Raises:
            ImageError: they are gone, or are others now.
        """
        location = record.location or ""
        digest = location.rpartition("/")[2]
        if not location or location != location_of(digest):
            raise ImageError(record.key, "the manifest has no bytes for it")
        path = os.path.realpath(Path(self.path) / location)
        if not Path(path).is_relative_to(os.path.realpath(self.path)):
            raise ImageError(record.key, "leads out of the folder")
        data = read_file(Path(path), record.key, self.max_bytes)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ImageError(record.key, f"{location} holds other bytes than were frozen; pull again with --refresh")
        return data

    @property
    def _parquet(self) -> Path:
        return Path(self.path) / MANIFEST

    @cached_property
    def _mapped(self) -> MappedColumns | None:
        columns = open_columns(Path(self.path) / PACKED)
        try:
            return columns if columns is not None and columns.tie == tie_of(self._parquet) else None
        except OSError as error:
            raise SourceError(f"{self._parquet} cannot be read ({error.strerror})") from error

    @cached_property
    def _facts(self) -> FrozenFacts:
        return frozen_facts(self._parquet)


@dataclass(frozen=True)
class FrozenFacts:
    """What a manifest says of itself as a whole.

    Attributes:
        classes: the classes of the source.
        fingerprint: the hash of its rows.
        shares: how rows were given their parts: `val`, `test` and `seed`; None where the source said them, or nobody.
    """

    classes: tuple[str, ...]
    fingerprint: str
    shares: Mapping[str, Any] | None = None


def frozen_facts(path: Path) -> FrozenFacts:
    """What a manifest says of itself; raise SourceError where it cannot be read or is none."""
    with _opened(path) as file:
        text = (file.schema_arrow.metadata or {}).get(_KEY)
    try:
        facts = json.loads(text or "")
        return FrozenFacts(tuple(different_texts(facts["classes"])), facts["fingerprint"], facts["shares"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{path} was not written by visionadapt pull; to read a table, give parquet(…)") from error


def frozen_rows(path: Path) -> Iterator[FrozenRow]:
    """Yield the rows of a manifest, in constant memory; raise SourceError where it cannot be read."""
    schema = _schema()
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=schema.names):
            for row in _typed(batch, schema).to_pylist():
                yield _row(row)


def frozen_keys(path: Path) -> Iterator[str]:
    """Yield the keys of a manifest's rows."""
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["key"]):
            yield from batch.column("key").to_pylist()


@contextmanager
def write_frozen(path: Path, facts: FrozenFacts) -> Iterator[Callable[[Sequence[FrozenRow]], None]]:
    """Give a function that takes rows, some at a time; when all are there, they replace the manifest in one step."""
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    text = json.dumps({"classes": facts.classes, "fingerprint": facts.fingerprint, "shares": facts.shares})
    schema = _schema().with_metadata({_KEY: text})
    with replacing(path) as file, ParquetWriter(file, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_batch(RecordBatch.from_pylist([_cells(row) for row in rows], schema=schema))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as a manifest ({' '.join(str(error).split())})") from error


def _typed(batch: Any, schema: Any) -> Any:
    """The rows with the types of the schema; raise ArrowInvalid where a value has another, or is missing."""
    from pyarrow import ArrowInvalid, RecordBatch

    columns = {field.name: batch.column(field.name).cast(field.type) for field in schema}
    inside = [columns["labels"].flatten(), columns["columns"].items]
    if any(values.null_count for values in (columns["key"], *inside)):
        raise ArrowInvalid("a row lacks its key, or the text of a label or a column")
    return RecordBatch.from_pydict(columns, schema=schema)


def _schema() -> Any:
    import pyarrow as pa

    text, number, texts = pa.string(), pa.int32(), pa.list_(pa.string())
    kinds = {
        "key": text,
        "location": text,
        "sha256": text,
        "size": pa.int64(),
        "width": number,
        "height": number,
        "mode": text,
        "labels": texts,
        "group": text,
        "split": text,
        "problem": text,
        "fetched_at": pa.timestamp("s", tz="UTC"),
        "columns": pa.map_(text, text),
    }
    return pa.schema(list(kinds.items()))


def _cells(row: FrozenRow) -> dict[str, Any]:
    location = location_of(row.sha256) if row.sha256 else None
    times = None if row.fetched_at is None else datetime.fromtimestamp(row.fetched_at, UTC)
    plain = {name: getattr(row, name) for name in ("key", "size", "width", "height", "mode", "group", "split")}
    whole = {"labels": list(row.labels), "problem": row.problem, "columns": sorted(row.columns.items())}
    return {**plain, **whole, "location": location, "sha256": row.sha256 or None, "fetched_at": times}


def _row(cells: Mapping[str, Any]) -> FrozenRow:
    digest = cells["sha256"] or ""
    problem = cells["problem"]
    if problem is None and cells["location"] != location_of(digest):
        digest, problem = "", "the manifest names another place than the hash of its bytes"
    plain = {name: cells[name] for name in ("key", "size", "width", "height", "mode", "group", "split")}
    times = cells["fetched_at"]
    return FrozenRow(
        **plain,
        sha256=digest,
        labels=tuple(cells["labels"] or ()),
        problem=problem,
        fetched_at=None if times is None else int(times.timestamp()),
        columns=dict(cells["columns"] or ()),
    )
