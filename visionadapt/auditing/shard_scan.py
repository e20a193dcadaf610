"""Scan one part of the files into a table of its own, and read the tables of all parts back: `audit --scanned`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from visionadapt.auditing.fingerprints import HASH_BITS, SIDE
from visionadapt.auditing.quality import Quality
from visionadapt.auditing.scan import FileFacts, scan
from visionadapt.core.records import Manifest, VersionedSource
from visionadapt.core.sharding import Shard, part_in
from visionadapt.data.dataset import Finding
from visionadapt.errors import RunError
from visionadapt.frozen.features import Progress
from visionadapt.images import DecodeAdapter
from visionadapt.prediction.shards import first_proof, merge, write_proof, written
from visionadapt.system.storage import replacing
from visionadapt.system.text import utf8_safe
from visionadapt.version import __version__

SCAN = "scan.parquet"
_ROWS_AT_ONCE = 1024
_OWN = {"file": pa.string(), "version": pa.string()}
"""Columns that say which row it is, and of which version of its file, as the source tells without reading it."""
_COLUMNS: dict[str, tuple[pa.DataType, Callable[[FileFacts], Any]]] = {
    "sha256": (pa.string(), lambda file: file.finding.sha256),
    "repairs": (pa.list_(pa.string()), lambda file: [utf8_safe(text) for text in file.finding.repairs]),
    "problem": (pa.string(), lambda file: _text(file.finding.problem)),
    "lasting": (pa.bool_(), lambda file: file.finding.lasting),
    "decoder": (pa.string(), lambda file: file.finding.decoder),
    "read": (pa.bool_(), lambda file: file.read),
    "size": (pa.int64(), lambda file: file.size),
    "form": (pa.string(), lambda file: file.form),
    "mode": (pa.string(), lambda file: file.mode),
    "height": (pa.int64(), lambda file: file.height),
    "width": (pa.int64(), lambda file: file.width),
    "digest": (pa.string(), lambda file: file.digest),
    "hash": (pa.binary(), lambda file: file.hash),
    "mirrored": (pa.binary(), lambda file: file.mirrored),
    "luma": (pa.binary(), lambda file: file.luma),
    "blank": (pa.bool_(), lambda file: file.blank),
    "quality": (pa.list_(pa.float64()), lambda file: None if file.quality is None else list(file.quality)),
}


@dataclass(frozen=True)
class Scanned:
    """The scan of one part: its table, how many rows it has, and how many of them cannot be used."""

    table: Path
    rows: int
    rejected: int


def write_scan(
    folder: Path, manifest: Manifest, shard: Shard, decode: DecodeAdapter, workers: int, progress: Progress
) -> Scanned:
    """Scan the files of one part into a table in a folder, in constant memory; a table that is complete is kept.

    Args:
        folder: holds the tables of all parts; it is created if necessary.
        manifest: the rows of all parts.
        shard: which part.
        decode: how files are read.
        workers: processes that read files.
        progress: called with the number of rows done and the total.

    Raises:
        RunError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be created ({error.strerror}); give another --scanned") from error
    part, model, table = part_in(manifest, shard), _model(manifest, decode), shard.path(folder / SCAN)
    done = written(table, part, model)
    if done is not None:
        return Scanned(table, len(part.places), done.rejected)
    rows, rejected, count = manifest.select(part.places), 0, 0
    schema = pa.schema({**_OWN, **{name: kind for name, (kind, _) in _COLUMNS.items()}})
    with replacing(table) as file, ParquetWriter(file, schema, compression="zstd") as writer:
        found = scan(rows, decode, workers)
        while some := list(islice(found, _ROWS_AT_ONCE)):
            cells = {name: [cell(each) for each in some] for name, (_, cell) in _COLUMNS.items()}
            places = [each.finding.index for each in some]
            names = [utf8_safe(rows.key(place)) for place in places]
            versions = [_version(rows, place) for place in places]
            writer.write_table(pa.table({"file": names, "version": versions, **cells}, schema))
            rejected += sum(not each.usable for each in some)
            count += len(some)
            progress(count, len(rows))
    write_proof(table, part, model, rejected)
    return Scanned(table, len(rows), rejected)


def read_scan(folder: Path, manifest: Manifest, decode: DecodeAdapter) -> list[FileFacts]:
    """Return the facts of every row from the tables of all parts, which are put together in the folder.

    Raises:
        RunError: a part is missing or damaged, or they are of other rows, or of files that were read differently.
    """
    every, proof = part_in(manifest, Shard(1, 1)), first_proof(folder / SCAN)
    if (proof.keys, proof.total) != (every.keys, every.total):
        raise RunError(f"{folder} holds the scan of other rows than the source has now; scan its parts again")
    if proof.model != _model(manifest, decode):
        raise RunError(
            f"the files in {folder} were read with another --sample-range, --bands, --exclude or version; "
            "scan all parts like the audit"
        )
    try:
        merge(folder / SCAN)
        found = list(_facts(folder / SCAN, manifest))
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{folder / SCAN} cannot be read ({error}); scan the parts again") from error
    if len(found) != len(manifest):
        raise RunError(f"{folder} holds {len(found):,} of {len(manifest):,} rows; scan the parts again")
    return found


def _facts(table: Path, manifest: Manifest) -> Iterator[FileFacts]:
    """Yield the facts in a table that somebody else may have written: each row must be that of the manifest."""
    try:
        with ParquetFile(table) as file:
            index = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*_OWN, *_COLUMNS]):
                for row in batch.to_pylist():
                    if index >= len(manifest) or row.pop("file") != utf8_safe(manifest.key(index)):
                        raise ValueError(f"row {index:,} is not that of the source")
                    if row.pop("version") != _version(manifest, index):
                        remedy = f"remove {table.parent}, and scan the parts again"
                        raise RunError(f"{manifest.key(index)!r:.200} has changed since it was scanned; {remedy}")
                    yield _fact(row, index)
                    index += 1
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(f"{table} cannot be read ({error}); scan the parts again") from error


def _version(manifest: Manifest, index: int) -> str | None:
    """Return what the source says of the version of a row without reading its file; None where it says nothing."""
    source = manifest.source
    found = source.version_of(manifest[index]) if isinstance(source, VersionedSource) else None
    return None if found is None else utf8_safe(found)


def _fact(row: dict[str, Any], index: int) -> FileFacts:
    """Return the facts of a row; raise ValueError or TypeError if they are none that a scan could have found."""
    sizes = (row["size"], row["height"], row["width"])
    usable = row["problem"] is None
    if any(type(size) is not int or size < 0 for size in sizes) or (usable and not isinstance(row["sha256"], str)):
        raise ValueError(f"row {index:,} has no size or no SHA-256")
    lengths = {"hash": HASH_BITS // 8, "mirrored": HASH_BITS // 8, "luma": SIDE * SIDE}
    if usable and (min(sizes) < 1 or any(len(row[name]) != length for name, length in lengths.items())):
        raise ValueError(f"row {index:,} has a hash or a thumbnail of another length")
    if row["quality"] is not None and not all(isinstance(value, float) for value in row["quality"]):
        raise ValueError(f"row {index:,} has no numbers of its quality")
    names = ("sha256", "repairs", "problem", "lasting", "decoder")
    found = {name: row.pop(name) for name in names}
    quality = row.pop("quality")
    finding = Finding(index, **{**found, "repairs": tuple(found["repairs"])})
    return FileFacts(finding, **row, quality=None if quality is None else Quality(*quality))


def _model(manifest: Manifest, decode: DecodeAdapter) -> str:
    """Hash how files are read, and which are not."""
    digest = hashlib.sha256(f"{__version__}\x1f{decode!r}".encode())
    for row, problem in enumerate(manifest.each_problem()):
        if problem is not None:
            digest.update(f"\x1e{row}\x1f{problem}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _text(text: str | None) -> str | None:
    return None if text is None else utf8_safe(text)
