"""Tables of one shard each: what proves that they belong together, and putting them together in the source's order."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.sharding import Part, Shard
from visionadapt.errors import RunError, UsageError
from visionadapt.system.storage import file_sha256, replacing, write_bytes

SUFFIXES = (".csv", ".jsonl", ".parquet")
_ROWS_AT_ONCE = 16_384
_NAME = re.compile(r"-([0-9]{5})-of-([0-9]{5})$")


@dataclass(frozen=True)
class Proof:
    """What the file beside a shard's table says: which rows of the source the table holds.

    Attributes:
        shard, of: which part of how many.
        total: rows of the source.
        keys: hash of the keys of all of them.
        model: hash of what computed the table.
        sha256: of the table.
        rejected: how many rows of this part were rejected.
        left_out: numbers of those that the table leaves out.
    """

    shard: int
    of: int
    total: int
    keys: str
    model: str
    sha256: str
    rejected: int = 0
    left_out: tuple[int, ...] = ()

    def belongs_to(self, part: Part, model: str) -> bool:
        """Whether the table is of these rows and this model."""
        same = (self.shard, self.of, self.total, self.keys, self.model)
        return same == (part.shard.number, part.shard.count, part.total, part.keys, model)


def proof_in(line: bytes) -> Proof:
    """Return what the first line of a proof says; raise ValueError where it is none."""
    try:
        facts = json.loads(line)
        return Proof(**{**facts, "left_out": tuple(map(int, facts["left_out"]))})
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("it is no proof of a shard") from error


def proof_path(table: Path) -> Path:
    """Return the file beside a shard's table: its proof as a line of JSON, then the numbers of its rows, uint64."""
    return table.with_name(f"{table.name}.shard")


def write_proof(table: Path, part: Part, model: str, rejected: int, left_out: Sequence[int] = ()) -> None:
    """Write the proof of a finished table; `left_out` are the numbers within the part of the rows that it lacks."""
    places = np.asarray(part.places, np.uint64)
    gone = places[list(left_out)]
    digest = file_sha256(table)
    facts = (part.shard.number, part.shard.count, part.total, part.keys, model, digest, rejected)
    proof = Proof(*facts, tuple(gone.tolist()))
    kept = np.delete(places, list(left_out)).astype("<u8")
    write_bytes(proof_path(table), json.dumps(asdict(proof)).encode() + b"\n" + kept.tobytes())


def written(table: Path, part: Part, model: str) -> Proof | None:
    """Return the proof of a shard's table if it is complete, and of the same rows and model; None for any other."""
    try:
        proof, _ = _read_proof(table)
    except RunError:
        return None
    return proof if proof.belongs_to(part, model) else None


def first_proof(out: Path) -> Proof:
    """Return the proof of the first shard of a table: all must agree with it. Raise RunError as `merge` does."""
    return _read_proof(_tables(out)[0])[0]


@dataclass(frozen=True)
class Merged:
    """How many rows a merged table has, of how many shards, and how many rows of the source were left out."""

    rows: int
    shards: int
    left_out: int


def merge(out: Path) -> Merged:
    """Put the tables of all shards, which lie beside `out`, together into it, in the order of the source.

    Raises:
        UsageError: `out` has a suffix that cannot be merged.
        RunError: a shard is missing, damaged, or of other rows or another model; or a row is missing or twice. `out` is
            not written then.
    """
    check_mergeable(out)
    tables = _tables(out)
    proofs = [_read_proof(table) for table in tables]
    first = proofs[0][0]
    for table, (proof, _) in zip(tables, proofs, strict=True):
        for name, what in (
            ("keys", "rows of the source"),
            ("total", "rows of the source"),
            ("model", "a run or model"),
        ):
            if getattr(proof, name) != getattr(first, name):
                raise RunError(f"{table} is of other {what} than {tables[0]}; compute the shards alike")
    left_out = np.sort(np.array([row for proof, _ in proofs for row in proof.left_out], np.uint64))
    with ExitStack() as opened, replacing(out) as file:
        readers = [opened.enter_context(_reading(table)) for table in tables]
        with readers[0].writing(file) as writer:
            for start in range(0, first.total, _ROWS_AT_ONCE):
                stop = min(start + _ROWS_AT_ONCE, first.total)
                found = [_between(places, start, stop) for _, places in proofs]
                gone = _between(left_out, start, stop)
                rows = np.concatenate([gone, *found]).astype(np.int64)
                _check_complete(rows, start, stop)
                order = np.argsort(rows[len(gone) :], kind="stable")
                writer([reader.take(len(part)) for reader, part in zip(readers, found, strict=True)], order)
        for table, reader in zip(tables, readers, strict=True):
            if reader.has_more():
                raise RunError(f"{table} has more rows than its proof; compute this shard again")
    return Merged(first.total - len(left_out), len(tables), len(left_out))


def check_mergeable(out: Path) -> None:
    """Raise UsageError where a table has a suffix that cannot be merged."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}: its parts are merged")


def _check_complete(rows: NDArray[np.int64], start: int, stop: int) -> None:
    """Raise RunError unless each row from `start` to before `stop` is there once."""
    found, counts = np.unique(rows, return_counts=True)
    twice = found[counts > 1]
    missing = np.setdiff1d(np.arange(start, stop), found)
    if len(twice) or len(missing):
        row, what = (twice[0], "twice") if len(twice) else (missing[0], "in no shard")
        raise RunError(f"row {row + 1:,} of the source is {what}; compute the shards again from one source")


def _between(places: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.uint64]:
    first, last = np.searchsorted(places, np.array([start, stop], np.uint64))
    return places[first:last]


def _tables(out: Path) -> list[Path]:
    """The tables of all shards; raise RunError where some are missing."""
    found: dict[int, dict[int, Path]] = {}
    for path in out.parent.glob("*"):
        match = _NAME.search(path.stem)
        if match and path.suffix == out.suffix and path.stem[: match.start()] == out.stem:
            found.setdefault(int(match[2]), {})[int(match[1])] = path
    if len(found) != 1:
        pattern = Shard(1, 16).path(out).name
        several = f"shards of {' and of '.join(map(str, sorted(found)))} parts; remove those of one" if found else "no"
        raise RunError(
            f"beside {out} there are {several} tables such as {pattern}" if not found else f"{out}: {several}"
        )
    ((count, paths),) = found.items()
    missing = [number for number in range(1, count + 1) if number not in paths]
    if missing:
        named = ", ".join(f"--shard {number}/{count}" for number in missing[:5])
        raise RunError(f"{out}: {len(missing)} of {count} shards are missing; compute {named}")
    return [paths[number] for number in range(1, count + 1)]


def _read_proof(table: Path) -> tuple[Proof, NDArray[np.uint64]]:
    """The proof of a table, and the numbers of its rows; raise RunError where they do not belong to it."""
    path = proof_path(table)
    match = _NAME.search(table.stem)
    try:
        with path.open("rb") as file:
            proof = proof_in(file.readline(1 << 26))
            start = file.tell()
        empty = start == path.stat().st_size  # which cannot be mapped
        places = np.empty(0, np.uint64) if empty else np.memmap(path, "<u8", "r", offset=start)
        whole = match is not None and (proof.shard, proof.of) == (int(match[1]), int(match[2]))
        if not whole or not 0 <= proof.total < 1 << 48 or proof.sha256 != file_sha256(table):
            raise ValueError("it belongs to another table")
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{table} is not a whole table of a shard, by {path.name}; compute this shard again") from error
    return proof, places


class _Reader(Protocol):
    """Reads the rows of a table in order, and makes the writer of one like it."""

    def take(self, count: int) -> Any:
        """Return the next rows."""

    def has_more(self) -> bool:
        """Whether there are further rows."""

    def writing(self, file: BinaryIO) -> Any:
        """Provide a function that writes some rows of each table in an order."""


@contextmanager
def _reading(table: Path) -> Iterator[_Reader]:
    if table.suffix.lower() == ".parquet":
        from pyarrow.parquet import ParquetFile

        with ParquetFile(table) as file:
            yield _ParquetRows(table, file)
    else:
        with table.open("r", encoding="utf-8", newline="") as text:
            yield _TextRows(table, text)


class _TextRows(_Reader):
    """Rows of CSV or JSON Lines, as their own texts."""

    def __init__(self, table: Path, file: io.TextIOBase) -> None:
        self._table = table
        self._rows: Iterator[Any] = csv.reader(file) if table.suffix.lower() == ".csv" else iter(file)
        self._head = next(self._rows, None) if table.suffix.lower() == ".csv" else None

    def take(self, count: int) -> list[Any]:
        """Return the next rows."""
        rows = list(islice(self._rows, count))
        if len(rows) != count:
            raise RunError(f"{self._table} has fewer rows than its proof; compute this shard again")
        return rows

    def has_more(self) -> bool:
        """Whether there are further rows."""
        return next(self._rows, None) is not None

    @contextmanager
    def writing(self, file: BinaryIO) -> Iterator[Any]:
        """Provide a function that writes some rows of each table in an order."""
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        out = csv.writer(text)
        if self._head is not None:
            out.writerow(self._head)

        def write(parts: Sequence[list[Any]], order: NDArray[np.int64]) -> None:
            rows = [row for part in parts for row in part]
            for place in order.tolist():
                if self._head is None:
                    text.write(rows[place])
                else:
                    out.writerow(rows[place])

        yield write
        text.detach()


class _ParquetRows(_Reader):
    """Rows of a Parquet file."""

    def __init__(self, table: Path, file: Any) -> None:
        from pyarrow import Table

        self._table, self._schema = table, file.schema_arrow
        self._batches = file.iter_batches(_ROWS_AT_ONCE)
        self._waiting = Table.from_batches([], self._schema)

    def take(self, count: int) -> Any:
        """Return the next rows."""
        from pyarrow import Table, concat_tables

        while self._waiting.num_rows < count:
            batch = next(self._batches, None)
            if batch is None:
                raise RunError(f"{self._table} has fewer rows than its proof; compute this shard again")
            self._waiting = concat_tables([self._waiting, Table.from_batches([batch])])
        rows, self._waiting = self._waiting.slice(0, count), self._waiting.slice(count)
        return rows

    def has_more(self) -> bool:
        """Whether there are further rows."""
        return self._waiting.num_rows > 0 or next(self._batches, None) is not None

    @contextmanager
    def writing(self, file: BinaryIO) -> Iterator[Any]:
        """Provide a function that writes some rows of each table in an order."""
        from pyarrow import ArrowException, concat_tables
        from pyarrow.parquet import ParquetWriter

        with ParquetWriter(file, self._schema, compression="zstd") as writer:

            def write(parts: Sequence[Any], order: NDArray[np.int64]) -> None:
                try:
                    writer.write_table(concat_tables(parts).take(order).cast(self._schema))
                except ArrowException as error:
                    raise RunError(
                        f"{self._table} and other shards have different columns; compute them alike"
                    ) from error

            yield write
