"""Classify any number of rows into one table in constant memory, and resume an interrupted prediction."""

from __future__ import annotations

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

from visionadapt.core.records import FrozenSource, Manifest, VersionedSource
from visionadapt.errors import RunError
from visionadapt.frozen.features import Progress
from visionadapt.prediction.prediction import Prediction
from visionadapt.prediction.predictor import Predictor
from visionadapt.prediction.tables import Write, check_suffix, writing
from visionadapt.system.locks import lock
from visionadapt.system.storage import sync_folder

_CELLS_AT_ONCE = 65_536
_FIELDS = tuple(item.name for item in fields(Prediction) if item.name != "classes")
_RUN_FILES = ("model.safetensors", "preprocess.json", "plan.json", "calibration.json", "calibration.safetensors")


@dataclass(frozen=True)
class Outcome:
    """How many rows were classified, rejected, and resumed from an earlier attempt (included in both counts)."""

    classified: int
    rejected: int
    resumed: int


def partial_of(out: Path) -> Path:
    """Return the hidden file of an unfinished attempt: `.predictions.csv.partial` next to the table."""
    return out.with_name(f".{out.name}.partial")


def check_free(out: Path, identity: str | None, overwrite: bool) -> None:
    """Raise RunError if a table cannot be written: there is one already, or an unfinished attempt at another one.

    An unfinished attempt with this identity can always be resumed, even if it was stopped after writing its table.
    While the identity is unknown (None), any unfinished attempt may be the one.
    """
    check_suffix(out)
    if not out.parent.is_dir():
        raise RunError(f"no such folder: {out.parent}; make it, or give another --out")
    begun = _identity_of(partial_of(out))
    if overwrite or (begun is not None and identity in {None, begun}):
        return
    if out.exists():
        raise RunError(f"{out} already exists; give another --out, or --overwrite it")
    if begun is not None:
        raise RunError(
            f"an unfinished attempt at {out} had another run, other images or another device; repeat its command to "
            "resume it, give another --out, or --overwrite it"
        )


def identity(run: Path, predictor: Predictor, manifest: Manifest) -> str:
    """Hash everything that the predictions depend on: the run's files, the plan, and all rows.

    A row counts with its key and the version that the source reports without reading its bytes; one of a source whose
    rows never change only with its key.
    """
    digest = _run_digest(run)
    plan = json.dumps({**predictor.plan.to_json(), "threads": torch.get_num_threads()}, sort_keys=True, default=str)
    digest.update(f"{predictor.classifier.backbone.weights_hash}\x1f{plan}\x1e".encode())
    source = manifest.source
    if isinstance(source, FrozenSource):
        digest.update(f"{source.fingerprint}\x1e".encode())
        for index in range(len(manifest)):
            digest.update(f"{manifest.key(index)}\x1e".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
    for record in manifest:
        version = source.version_of(record) if isinstance(source, VersionedSource) else None
        row = "\x1f".join(map(repr, (record.key, record.location, record.problem, version)))
        digest.update(f"{row}\x1e".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def model_hash(run: Path, predictor: Predictor) -> str:
    """Hash what predictions on any machine depend on: the run's files, and the backbone's weights."""
    digest = _run_digest(run)
    digest.update(predictor.classifier.backbone.weights_hash.encode())
    return digest.hexdigest()


def _run_digest(run: Path) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=16)
    for path in (run / name for name in _RUN_FILES):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        digest.update(f"{path.name}\x1f{content}\x1e".encode())
    return digest


def predict_into(
    out: Path,
    predictor: Predictor,
    manifest: Manifest,
    identity: str,
    workers: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Classify every row into a table with the columns of `visionadapt.prediction.tables.writing`.

    Each batch of results is appended to a hidden file next to the table, and synced to disk. The rows of an existing
    file with the same `identity` are not computed again; one with another is replaced. The table appears in one step at
    the end. Raise RunError if a file cannot be written, or another process is writing it.
    """
    partial = partial_of(out)
    with _one_line_errors(partial), partial.open("a+b") as file:
        if not lock(file, wait=False):
            raise RunError(f"another process is writing {out}; wait for it, or give another --out")
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
def _one_line_errors(partial: Path) -> Iterator[None]:
    """Turn errors in writing the hidden file into RunErrors; the writers of other files do so themselves."""
    try:
        yield
    except OSError as error:
        if error.filename not in {None, str(partial)}:
            raise
        raise RunError(f"{partial} cannot be written ({error.strerror}); its rows are kept") from error


def _identity_of(partial: Path) -> str | None:
    """Return the identity of an unfinished attempt; None if there is none that can be resumed."""
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
    """Cut off a half-written line, or start over; return how many rows are done."""
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
    """Return the rows of a line; None if it is incomplete or damaged."""
    try:
        rows = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    complete = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(_FIELDS) for row in rows)
    return rows if complete else None


def _append(file: BinaryIO, predictions: Sequence[Prediction]) -> None:
    """Append a batch as one line, and sync it to disk."""
    rows = [[getattr(prediction, name) for name in _FIELDS] for prediction in predictions]
    file.write(json.dumps(rows).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def write_rows(rows: Iterator[Prediction], write: Write, classes: int) -> tuple[int, int]:
    """Write predictions, some thousand at once; return how many there were, and how many of them were rejected."""
    rejected = total = 0
    while chunk := list(itertools.islice(rows, max(_CELLS_AT_ONCE // classes, 1))):
        write(chunk, [()] * len(chunk))
        total += len(chunk)
        rejected += sum(row.problem is not None for row in chunk)
    return total, rejected


def _finish(file: BinaryIO, out: Path, predictor: Predictor, resumed: int) -> Outcome:
    """Write the table from the hidden file."""
    with writing(out, predictor.classes, predictor.task) as write:
        total, rejected = write_rows(_rows(file), write, len(predictor.classes))
    return Outcome(total - rejected, rejected, resumed)


def _rows(file: BinaryIO) -> Iterator[Prediction]:
    file.seek(0)
    next(file)
    for line in file:
        for values in json.loads(line):
            cells: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
            yield Prediction(*cells)
