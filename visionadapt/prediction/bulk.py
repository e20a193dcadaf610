"""Classify any number of rows into one table, in constant memory; a stopped attempt is gone on with."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch

from visionadapt.core.records import Manifest, VersionedSource
from visionadapt.errors import RunError
from visionadapt.frozen.features import Progress
from visionadapt.prediction.prediction import Prediction
from visionadapt.prediction.predictor import Predictor
from visionadapt.prediction.tables import check_suffix, writing
from visionadapt.system.storage import sync_folder

_CELLS_AT_ONCE = 65_536
_FIELDS = tuple(item.name for item in fields(Prediction) if item.name != "classes")
_RUN_FILES = ("model.safetensors", "preprocess.json", "plan.json", "calibration.json", "calibration.safetensors")


@dataclass(frozen=True)
class Outcome:
    """How many rows were classified, rejected, and found done by an earlier attempt (they are in both counts)."""

    classified: int
    rejected: int
    resumed: int


def partial_of(out: Path) -> Path:
    """The hidden file that holds what an unfinished attempt has found: `.predictions.csv.partial` beside the table."""
    return out.with_name(f".{out.name}.partial")


def check_free(out: Path, identity: str | None, overwrite: bool) -> None:
    """Raise RunError where a table cannot be written: there is one already, or another attempt is unfinished.

    An unfinished attempt of this identity is gone on with in any case; one that was stopped at its very end may have
    written its table. While the identity is not known (None), any unfinished attempt may be the one.

    Raises:
        RunError: as told.
        UsageError: the file's name has no known ending.
    """
    check_suffix(out)
    if not out.parent.is_dir():
        raise RunError(f"no such folder: {out.parent}; make it, or give another --out")
    begun = _identity_of(partial_of(out))
    if overwrite or (begun is not None and identity in {None, begun}):
        return
    if out.exists():
        raise RunError(f"{out} is there already; give another --out, or --overwrite it")
    if begun is not None:
        raise RunError(
            f"an unfinished attempt at {out} had another run, other pictures or another device; repeat its command to "
            "go on with it, give another --out, or --overwrite it"
        )


def identity(run: Path, predictor: Predictor, manifest: Manifest) -> str:
    """A hash of everything that the rows' predictions depend on: the run's files, how it computes, and all rows.

    Of each row it is the key, and what the source tells of its bytes without reading them.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in (run / name for name in _RUN_FILES):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        digest.update(f"{path.name}\x1f{content}\x1e".encode())
    plan = json.dumps({**predictor.plan.to_json(), "threads": torch.get_num_threads()}, sort_keys=True, default=str)
    digest.update(f"{predictor.classifier.backbone.weights_hash}\x1f{plan}\x1e".encode())
    source = manifest.source
    for record in manifest:
        version = source.version_of(record) if isinstance(source, VersionedSource) else None
        row = "\x1f".join(map(repr, (record.key, record.location, record.problem, version)))
        digest.update(f"{row}\x1e".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def predict_into(
    out: Path,
    predictor: Predictor,
    manifest: Manifest,
    identity: str,
    workers: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Classify every row into a table; `outputs.writing` tells its columns.

    What is found is kept in a hidden file beside it, batch by batch, brought to the disk each time. Where such a file
    of the same identity is there, its rows are not computed again. The table appears in one step when all is done.

    Args:
        out: ends with .csv, .jsonl or .parquet.
        predictor: the classifier.
        manifest: the rows.
        identity: as `identity` gives it; another one's unfinished attempt is replaced.
        workers: processes that read pictures.
        progress: is told of every row.

    Raises:
        RunError: a file cannot be written, or another process is at it.
    """
    partial = partial_of(out)
    with _told(partial), partial.open("a+b") as file:
        _lock(file, out)
        resumed = _begin(file, identity)
        for batch in predictor.batches(manifest, workers, resumed):
            _append(file, [prediction for prediction, _ in batch])
            if progress is not None:
                progress(batch[-1][1].index + 1, len(manifest))
        outcome = _finish(file, out, predictor, resumed)
        partial.unlink()
        sync_folder(out.parent)
    return outcome


@contextmanager
def _told(partial: Path) -> Iterator[None]:
    """Turn what writing the hidden file may raise into one line; other files have their own."""
    try:
        yield
    except OSError as error:
        if error.filename not in {None, str(partial)}:
            raise
        raise RunError(f"{partial} cannot be written ({error.strerror}); what it holds is kept") from error


def _lock(file: BinaryIO, out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(f"another process is writing {out}; wait for it, or give another --out") from error


def _identity_of(partial: Path) -> str | None:
    """The identity of an unfinished attempt; None where there is none that can be gone on with."""
    try:
        with partial.open("rb") as file:
            return _head(file)
    except FileNotFoundError:
        return None


def _head(file: BinaryIO) -> str | None:
    line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        return str(json.loads(line)["identity"])
    except (ValueError, KeyError, TypeError):
        return None


def _begin(file: BinaryIO, identity: str) -> int:
    """Cut what was half written, or begin anew; return how many rows are done."""
    file.seek(0)
    done, end = 0, 0
    if _head(file) == identity:
        end = file.tell()
        for line in file:
            rows = _kept(line)
            if rows is None:
                break
            done, end = done + len(rows), end + len(line)
    file.seek(end)
    file.truncate()
    if not end:
        file.write(json.dumps({"identity": identity}).encode() + b"\n")
    return done


def _kept(line: bytes) -> list[list[Any]] | None:
    """The rows of a line; None where it was half written, or is damaged."""
    try:
        rows = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    whole = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(_FIELDS) for row in rows)
    return rows if whole else None


def _append(file: BinaryIO, predictions: Sequence[Prediction]) -> None:
    """Add a batch as one line, and bring it to the disk."""
    rows = [[getattr(prediction, name) for name in _FIELDS] for prediction in predictions]
    file.write(json.dumps(rows).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _finish(file: BinaryIO, out: Path, predictor: Predictor, resumed: int) -> Outcome:
    """Turn the kept lines into the table."""
    rejected = total = 0
    rows_at_once = max(_CELLS_AT_ONCE // len(predictor.classes), 1)
    with writing(out, predictor.classes, predictor.task) as write:
        rows = _rows(file)
        while chunk := list(itertools.islice(rows, rows_at_once)):
            write(chunk, [()] * len(chunk))
            total += len(chunk)
            rejected += sum(row.problem is not None for row in chunk)
    return Outcome(total - rejected, rejected, resumed)


def _rows(file: BinaryIO) -> Iterator[Prediction]:
    file.seek(0)
    next(file)
    for line in file:
        for values in json.loads(line):
            yield Prediction(**{name: _value(value) for name, value in zip(_FIELDS, values, strict=True)})


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
