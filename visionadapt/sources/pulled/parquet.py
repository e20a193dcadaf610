"""The Parquet file of a pulled manifest: its rows, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visionadapt.errors import SourceError
from visionadapt.sources.pulled.rows import FrozenRow, location_of
from visionadapt.sources.pulled.sections import different_texts
from visionadapt.system.digest import BLANK, check_digest, seal_end
from visionadapt.system.storage import replacing

_KEY = b"visionadapt"
_ROWS_AT_ONCE = 16_384
_PLAIN = ("key", "size", "width", "height", "mode", "group", "split")


@dataclass(frozen=True)
class FrozenFacts:
    """What a manifest records about all its rows.

    Attributes:
        classes: the classes of the source.
        fingerprint: the hash of its rows.
        shares: how splits were assigned: `val`, `test` and `seed`; None where the source gave them, or nothing did.
    """

    classes: tuple[str, ...]
    fingerprint: str
    shares: Mapping[str, Any] | None = None


def frozen_facts(path: Path) -> FrozenFacts:
    """Read what a manifest records about all its rows; raise SourceError where it cannot be read or is none."""
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
    with _opened(path, whole=True) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=schema.names):
            for row in _typed(batch, schema).to_pylist():
                yield _row(row)


def frozen_keys(path: Path) -> Iterator[str]:
    """Yield the keys of a manifest's rows."""
    with _opened(path, whole=True) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["key"]):
            yield from batch.column("key").to_pylist()


@contextmanager
def write_frozen(path: Path, facts: FrozenFacts) -> Iterator[Callable[[Sequence[FrozenRow]], None]]:
    """Yield a function that writes rows, some at a time; when all are written, they replace the manifest at once."""
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    text = json.dumps({"classes": facts.classes, "fingerprint": facts.fingerprint, "shares": facts.shares})
    schema = _schema().with_metadata({_KEY: text})
    with replacing(path) as file:
        with ParquetWriter(file, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_batch(RecordBatch.from_pylist([_cells(row) for row in rows], schema=schema))
            writer.add_key_value_metadata({"digest": BLANK})
        seal_end(file)


@contextmanager
def _opened(path: Path, whole: bool = False) -> Iterator[Any]:
    """Yield the open file; compare it with its digest if the `whole` file will be read."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        if whole:
            check_digest(path, at_end=True)
        with ParquetFile(path) as file:
            yield file
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        why = " ".join(str(error).split())
        raise SourceError(f"{path} cannot be read as a manifest ({why}); restore it, or pull anew") from error


def _typed(batch: Any, schema: Any) -> Any:
    """The rows with the types of the schema; raise ArrowInvalid where a value has another type, or is missing."""
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
    return {
        **{name: getattr(row, name) for name in _PLAIN},
        "labels": list(row.labels),
        "problem": row.problem,
        "columns": sorted(row.columns.items()),
        "location": location_of(row.sha256) if row.sha256 else None,
        "sha256": row.sha256 or None,
        "fetched_at": None if row.fetched_at is None else datetime.fromtimestamp(row.fetched_at, UTC),
    }


def _row(cells: Mapping[str, Any]) -> FrozenRow:
    digest, problem, fetched_at = cells["sha256"] or "", cells["problem"], cells["fetched_at"]
    if problem is None and cells["location"] != location_of(digest):
        digest, problem = "", "the manifest names another place than the hash of its bytes"
    return FrozenRow(
        **{name: cells[name] for name in _PLAIN},
        sha256=digest,
        labels=tuple(cells["labels"] or ()),
        problem=problem,
        fetched_at=None if fetched_at is None else int(fetched_at.timestamp()),
        columns=dict(cells["columns"] or ()),
    )
