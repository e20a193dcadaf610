"""The ledger of a run: whether each row was used, repaired (how) or rejected (why), in one Parquet file.

`rejected.csv` next to it lists the rejected rows for people.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from visionadapt.core.records import LocalSource, Manifest, Record, Source, VersionedSource
from visionadapt.data.dataset import Finding
from visionadapt.data.reasons import commonest
from visionadapt.errors import ImageError, RunError, SourceError, UsageError
from visionadapt.runs.folder import read_json
from visionadapt.system.csv_text import row_text
from visionadapt.system.digest import BLANK, check_digest, seal_end
from visionadapt.system.storage import replacing
from visionadapt.system.text import counted, percent, utf8_safe

LEDGER = "ledger.parquet"
REJECTED = "rejected.csv"
_ROWS_AT_ONCE = 4_096

Parts = Mapping[str, tuple[Manifest, Sequence[Finding]]]
"""Rows and findings of each split, by its name, such as `train`."""
_VersionOf = Callable[[Record], str | None]


def write_ledger(run: Path, parts: Parts) -> None:
    """Write the outcome of every row of a run to the ledger, and the rejected rows to a CSV file, each atomically.

    Columns: `file` (the row's key), `part`, `labels`, `group`, `status` (`used`, `repaired`, `rejected`), `repairs`,
    `reason`, `sha256`, `decoder` (the extra library that decoded the file), and `version` (see `VersionedSource`),
    `width`, `height` and `mode` if the source provides them. Bytes that are not UTF-8 are escaped.

    Raises:
        RunError: a file cannot be written.
    """
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    with replacing(run / REJECTED) as file:
        file.write(row_text(("file", "reason")).encode())
        for row in _rows(parts):
            if row["reason"] is not None:
                file.write(row_text((row["file"], row["reason"])).encode())
    schema = _schema()
    with replacing(run / LEDGER) as file:
        with ParquetWriter(file, schema, compression="zstd") as writer:
            rows = _rows(parts)
            while chunk := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_batch(RecordBatch.from_pylist(chunk, schema=schema))
            writer.add_key_value_metadata({"digest": BLANK})
        seal_end(file)


def read_ledger(run: Path, part: str, manifest: Manifest) -> list[Finding] | None:
    """Return the findings of an earlier, completed pass over a split; None if there is no ledger.

    Files are read again only where the source says that they may have changed.

    Raises:
        RunError: the ledger has other rows, labels or contents of files, of which the first is named; or it cannot be
            read.
    """
    if not (run / LEDGER).exists():
        return None
    findings: list[Finding] = []
    version_of = _versions(manifest.source)
    for row in ledger_rows(run, ("file", "part", "labels", "repairs", "reason", "sha256", "decoder", "version")):
        if row["part"] != part:
            continue
        index = len(findings)
        if index == len(manifest):
            raise _other_rows(run, f"{row['file']} is missing")
        _check_row(run, row, manifest, index, version_of)
        decoder = row.get("decoder") or ""  # former versions have no such column
        findings.append(Finding(index, row["sha256"], tuple(row["repairs"]), row["reason"], decoder=decoder))
    if len(findings) != len(manifest):
        raise _other_rows(run, f"{manifest.key(len(findings))} is new")
    return findings


def _check_row(run: Path, row: Mapping[str, Any], manifest: Manifest, index: int, version_of: _VersionOf) -> None:
    """Raise RunError if a row of the ledger is not the one that the manifest has at its place."""
    record, source = manifest[index], manifest.source
    labels, key = [utf8_safe(label) for label in record.labels], utf8_safe(record.key)
    if row["file"] != key:
        raise _other_rows(run, f"in the place of {row['file']} there is {key}")
    if row["labels"] != labels:
        raise _other_rows(run, f"{key} was {_named(row['labels'])} and is {_named(labels)}")
    version = row.get("version")
    if version is None or not row["sha256"] or version == version_of(record):
        return
    try:
        same = hashlib.sha256(source.read(record)).hexdigest() == row["sha256"]
    except ImageError as error:
        raise _other_rows(run, f"{key} {error.reason}") from error
    if not same:
        raise _other_rows(run, f"{key} has other contents")


def _versions(source: Source) -> _VersionOf:
    """Return what gives the version of a row: that of a local file.

    What a server holds is not fetched again only because its address changed. Asking a source whether it is of a
    protocol is slow, so it is asked once for many rows.
    """
    if isinstance(source, VersionedSource) and isinstance(source, LocalSource):
        return source.version_of
    return lambda record: None


def _named(labels: Sequence[str]) -> str:
    return " and ".join(map(repr, labels)) or "without a label"


def trained_files(run: Path) -> frozenset[str]:
    """Return the SHA-256 of the files that a run was trained on; empty if it has no ledger."""
    rows = ledger_rows(run, ("part", "status", "sha256")) if (run / LEDGER).exists() else ()
    refit = (run / "summary.json").exists() and "refit_images" in read_json(run, "summary.json")
    parts = {"train", "val"} if refit else {"train"}
    return frozenset(row["sha256"] for row in rows if row["part"] in parts and row["status"] != "rejected")


def ledger_rows(run: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's ledger as dicts, in constant memory; `columns` names the columns to read.

    Raises:
        RunError: the ledger is missing or damaged.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    path = run / LEDGER
    try:
        check_digest(path, at_end=True)
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({' '.join(str(error).split())}); start a new run") from error


def status(finding: Finding) -> str:
    """Return `used`, `repaired` or `rejected`."""
    return "rejected" if finding.problem is not None else "repaired" if finding.repairs else "used"


def count_statuses(findings: Iterable[Finding]) -> dict[str, int]:
    """Count the used, repaired and rejected rows."""
    counts = {"used": 0, "repaired": 0, "rejected": 0}
    for finding in findings:
        counts[status(finding)] += 1
    return counts


def most_rejected(limit: str, rows: int) -> int:
    """Return how many of `rows` rows may be rejected under a limit such as `5%` or `20`.

    Raises:
        UsageError: the limit is neither a share from 0% to 100% nor a whole number.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%|([0-9]+)", limit.strip())
    if match is None or (match[1] and float(match[1]) > 100):
        raise UsageError(f"--max-rejected {limit!r} is no limit; give a share such as 5%, or a number of rows")
    return int(match[2]) if match[2] else int(rows * float(match[1]) / 100)


def rejected_rows(manifest: Manifest, findings: Sequence[Finding]) -> list[tuple[Record, str]]:
    """Return the rejected rows, each with its problem."""
    return [(manifest[each.index], each.problem) for each in findings if each.problem is not None]


def check_rejected(run: Path, parts: Parts, limit: str) -> None:
    """Raise SourceError if more rows of a run are rejected than `limit` allows."""
    rejected = [row for part in parts.values() for row in rejected_rows(*part)]
    rows = sum(len(findings) for _, findings in parts.values())
    if len(rejected) <= most_rejected(limit, rows):
        return
    source = next(iter(parts.values()))[0].source
    share, are = percent(len(rejected) / rows), "is" if len(rejected) == 1 else "are"
    raise SourceError(
        f"{len(rejected):,} of {counted(rows, 'row')} {are} rejected ({share}), more than --max-rejected "
        f"{limit} allows: {commonest(rejected, source)}; all of them are in {run / REJECTED}"
    )


def _rows(parts: Parts) -> Iterator[dict[str, Any]]:
    for part, (manifest, findings) in parts.items():
        version_of = _versions(manifest.source)
        for finding in findings:
            record = manifest[finding.index]
            yield {
                "file": utf8_safe(record.key),
                "part": part,
                "labels": [utf8_safe(label) for label in record.labels],
                "group": None if record.group is None else utf8_safe(record.group),
                "status": status(finding),
                "repairs": list(finding.repairs),
                "reason": None if finding.problem is None else utf8_safe(finding.problem),
                "sha256": finding.sha256,
                "decoder": finding.decoder,
                "version": version_of(record),
                "width": _number(record, "width"),
                "height": _number(record, "height"),
                "mode": utf8_safe(record.columns["mode"]) if "mode" in record.columns else None,
            }


def _schema() -> Any:
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    kinds = {"labels": texts, "repairs": texts, "width": pa.int32(), "height": pa.int32()}
    names = ("file", "part", "labels", "group", "status", "repairs", "reason", "sha256", "decoder", "version")
    return pa.schema([(name, kinds.get(name, text)) for name in (*names, "width", "height", "mode")])


def _number(record: Record, column: str) -> int | None:
    text = record.columns.get(column, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _other_rows(run: Path, difference: str) -> RunError:
    anew = f"or start a new run with the same settings (visionadapt runs {run} --toml)"
    return RunError(f"the images are not those that {run} began with: {difference}; restore that, {anew}")
