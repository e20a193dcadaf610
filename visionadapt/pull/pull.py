"""Pull any source: its rows into an immutable Parquet manifest, and the bytes of its images under their hashes."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest, Record, Source, VersionedSource
from visionadapt.errors import ImageError, RunError, UsageError
from visionadapt.images import picture_header
from visionadapt.pull.assignment import AssignableRow, Shares, assign
from visionadapt.pull.journal import Fetched, Journal
from visionadapt.sources import FileSource, FolderSource, ManifestSource
from visionadapt.sources.pulled.packed import PackedWriter, open_columns
from visionadapt.sources.pulled.parquet import FrozenFacts, frozen_facts, frozen_keys, frozen_rows, write_frozen
from visionadapt.sources.pulled.rows import FILES, MANIFEST, PACKED, Fingerprint, location_of, tie_of
from visionadapt.system.locks import lock
from visionadapt.system.storage import check_outside
from visionadapt.system.text import utf8_safe

Progress = Callable[[int, int], None]
"""Called with the number of rows done and of rows listed so far."""

_WORK = ".pull"
_ROWS_AT_ONCE = 16_384
_COMMIT_EVERY = 64
_REASONS = 5
_URL = re.compile(r"https?://", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s?#]*@")


@dataclass(frozen=True)
class Pulled:
    """The outcome of a pull.

    Attributes:
        rows: how many rows the manifest has.
        fetched: how many rows' bytes were read by this pull; those of the others were there.
        failed: how many rows have no bytes.
        reasons: the first few of them as (key, reason).
        removed: how many rows of the previous manifest are no longer there.
        fingerprint: the hash of the manifest's rows.
        changed: whether the manifest differs from the previous one.
    """

    rows: int = 0
    fetched: int = 0
    failed: int = 0
    reasons: tuple[tuple[str, str], ...] = ()
    removed: int = 0
    fingerprint: str = ""
    changed: bool = False


def pull(
    rows: Source | Manifest,
    out: str | Path,
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    workers: int = 8,
    refresh: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Pull a source into the folder `out`, or bring what is there up to date.

    `manifest.parquet` holds a row for each of the source's, with the SHA-256 of its bytes; `files/` the bytes, each
    under its hash, so that a key is never a file's name; `manifest.packed` the same rows for fast reading. A pull
    that was interrupted resumes. Where nothing has changed, nothing is written.

    Args:
        rows: the source to pull, or rows of one, as `Edits.apply` returns them; its `read` is called by several
            threads.
        out: the folder.
        val, test: shares of each class to mark as `val` and `test`, where the source has no splits. A row keeps its
            split for good, also when rows are added; so do the shares, which need not be given again.
        seed: determines, with the keys, which rows these are; 0 by default.
        workers: how many threads fetch bytes. At most twice as many images are in memory at once.
        refresh: whether to fetch everything again. By default a row's bytes are fetched if there are none, or if the
            source reports that they may have changed: by its `version_of`, or by another URL or other columns.
        progress: called after every row.

    Raises:
        UsageError: the source cannot be read, the shares are invalid or differ from those used before, or `out` holds
            other things.
        RunError: `out` cannot be written, or another pull is using it.
    """
    out, source = Path(out), (rows.source if isinstance(rows, Manifest) else rows)
    if workers < 1:
        raise UsageError(f"--workers {workers}: at least one is needed")
    _check_folder(source, out)
    with _journal(out) as journal:
        before = _before(out, journal)
        shares = _shares(before, val, test, seed)
        pulling = _Pulling(rows, source, out, journal, refresh, progress)
        pulling.run(workers)
        if shares is not None:
            assigned = assign(lambda: (AssignableRow(*row) for row in journal.assignable()), shares)
            while some := list(islice(assigned, _ROWS_AT_ONCE)):
                journal.assign(some)
        journal.commit()
        return _finish(pulling, before, shares)


@dataclass
class _Pulling:
    rows: Source | Manifest
    source: Source
    out: Path
    journal: Journal
    refresh: bool
    progress: Progress | None
    listed: int = 0
    done: int = 0
    fetched: int = 0
    committed_at: float = field(default_factory=time.monotonic)

    def run(self, workers: int) -> None:
        """List every row and fetch what is not there, a bounded number at a time."""
        self.journal.begin_listing()
        waiting: deque[tuple[str, str | None, Future[bytes]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for record in self.rows:
                    clean, version = _clean(record), _version(self.source, record)
                    self.journal.list_row(clean)
                    self.listed += 1
                    if record.problem is not None or self._is_there(clean.key, version):
                        self._count()
                        continue
                    waiting.append((clean.key, version, pool.submit(self.source.read, record)))
                    if len(waiting) == 2 * workers:
                        self._take(*waiting.popleft())
                while waiting:
                    self._take(*waiting.popleft())
            finally:
                for _, _, future in waiting:
                    future.cancel()

    def _take(self, key: str, version: str | None, future: Future[bytes]) -> None:
        """Store a row's bytes under their hash, and what is known of them; or why there are none."""
        try:
            outcome = self._stored(key, version, future.result())
        except ImageError as error:
            outcome = Fetched(version, problem=_plain(error.reason))
        self.journal.remember(key, outcome)
        self.fetched += 1
        self._count()

    def _stored(self, key: str, version: str | None, data: bytes) -> Fetched:
        digest = hashlib.sha256(data).hexdigest()
        path = self.out / location_of(digest)
        if not _holds(path, digest, len(data)):
            _store(path, data, self.out / _WORK)
        known = self.journal.fetched(key)
        same = known is not None and known.sha256 == digest
        fetched_at = known.fetched_at if known is not None and same else int(time.time())
        width, height, mode, _ = picture_header(data) or (None, None, None, None)
        return Fetched(version, digest, len(data), width, height, mode, None, fetched_at)

    def _count(self) -> None:
        self.done += 1
        if self.done % _COMMIT_EVERY == 0 or time.monotonic() - self.committed_at > 0.2:
            self.journal.commit()
            self.committed_at = time.monotonic()
        if self.progress is not None:
            self.progress(self.done, self.listed)

    def _is_there(self, key: str, version: str | None) -> bool:
        """Whether a row's bytes are here already, and still those of the source as far as it can tell."""
        known = self.journal.fetched(key)
        if self.refresh or known is None or not known.sha256 or version is None or known.version != version:
            return False
        return _size(self.out / location_of(known.sha256)) == known.size


def _holds(path: Path, digest: str, size: int) -> bool:
    """Whether a file holds the bytes with a hash."""
    try:
        return _size(path) == size and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _store(path: Path, data: bytes, work: Path) -> None:
    unfinished = work / f"bytes-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); what was fetched is stored, pull again"
        ) from error


def _size(path: Path) -> int | None:
    """The size of a regular file in bytes; None for anything else, and for a link to one."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _version(source: Source, record: Record) -> str | None:
    """A hash that changes when a row's bytes may have changed; None where that is unknown."""
    own = source.version_of(record) if isinstance(source, VersionedSource) else None
    location = record.location or record.key
    if own is not None:
        return f"{stable_hash(location, own):016x}"
    return f"{stable_hash(location, *sorted(record.columns.items())):016x}" if _URL.match(location) else None


def _clean(record: Record) -> Record:
    """A record in valid Unicode, without the name and password that a URL may hold."""
    return Record(
        key=_plain(record.key),
        labels=tuple(map(_plain, record.labels)),
        group=None if record.group is None else _plain(record.group),
        split=record.split,
        problem=None if record.problem is None else _plain(record.problem),
        columns={_plain(name): _plain(text) for name, text in record.columns.items()},
    )


def _plain(text: str) -> str:
    return _USER.sub("***@", utf8_safe(text))


def _check_folder(source: Source, out: Path) -> None:
    """Raise UsageError where nothing can be pulled into `out`."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder; give another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists() and not (out / _WORK).exists():
        raise UsageError(f"{out} holds other things than a manifest; give another --out")
    for folder in (out / _WORK, out / FILES):
        for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
            if path.is_symlink() or (path.exists() and not (path.is_dir() or path.is_file())):
                raise UsageError(f"{path} is a link, or no file and no folder; remove it, or give another --out")
    for root in _folders(source):
        check_outside("--out", out, root)


def _folders(source: Source) -> Sequence[str | Path]:
    """Folders of which a source takes every file."""
    if isinstance(source, FolderSource):
        return (source.root,)
    if isinstance(source, ManifestSource):
        return (source.path,)
    return source.folders if isinstance(source, FileSource) else ()


@contextmanager
def _journal(out: Path) -> Iterator[Journal]:
    """Open the journal of a folder, while no other pull is using it."""
    work = out / _WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = (work / "lock").open("w")
        ours = lock(file, wait=False)
    except OSError as error:
        raise RunError(f"{work} cannot be written ({error.strerror}); give another --out") from error
    with file:
        if not ours:
            raise RunError(f"another pull is using {out}; wait until it has finished")
        for left in (*work.glob("bytes-*"), *work.glob("packing-*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        with closing(Journal(work / "journal.sqlite")) as journal:
            yield journal


def _before(out: Path, journal: Journal) -> FrozenFacts | None:
    """What the previous manifest records; the journal takes in its rows, unless it has them."""
    if not (out / MANIFEST).exists():
        return None
    facts = frozen_facts(out / MANIFEST)
    if journal.value("fingerprint") != facts.fingerprint:
        journal.take_in(frozen_rows(out / MANIFEST))
        journal.set_value("fingerprint", facts.fingerprint)
    return facts


def _shares(before: FrozenFacts | None, val: float | None, test: float | None, seed: int | None) -> Shares | None:
    """The requested shares, or those used before; raise UsageError where they differ."""
    given = {name: value for name, value in {"val": val, "test": test, "seed": seed}.items() if value is not None}
    if before is None or before.shares is None:
        return Shares(**given) if val or test else None  # type: ignore[arg-type]
    for name, value in given.items():
        if value != before.shares[name]:
            raise UsageError(
                f"--{name} {value}: the splits were assigned with {name} {before.shares[name]}; leave it out, or pull "
                "into another folder"
            )
    return Shares(**before.shares)


def _finish(pulling: _Pulling, before: FrozenFacts | None, shares: Shares | None) -> Pulled:
    """Write the manifest if it differs from the previous one; return the outcome."""
    out, journal = pulling.out, pulling.journal
    classes = tuple(map(_plain, pulling.source.classes))
    rows, failed = Fingerprint(classes), 0
    reasons: list[tuple[str, str]] = []
    for row in journal.rows():
        rows.add(row)
        if row.problem is not None:
            failed += 1
            reasons += [(row.key, row.problem)] * (len(reasons) < _REASONS)
    facts = FrozenFacts(classes, rows.hexdigest(), None if shares is None else asdict(shares))
    removed = 0
    if before is not None and before != facts:
        removed = sum(not journal.is_listed(key) for key in frozen_keys(out / MANIFEST))
    columns = open_columns(out / PACKED)
    tie = None if columns is None else (columns.fingerprint, columns.tie)
    if before != facts or tie != (facts.fingerprint, tie_of(out / MANIFEST)):
        os.sync()
        _write(out, journal, facts, rewrite=before != facts)
    journal.set_value("fingerprint", facts.fingerprint)
    return Pulled(
        *(pulling.listed, pulling.fetched, failed, tuple(reasons), removed, facts.fingerprint), changed=before != facts
    )


def _write(out: Path, journal: Journal, facts: FrozenFacts, rewrite: bool) -> None:
    """Write the Parquet file, if asked to, and the packed one; each in one step."""
    with TemporaryDirectory(prefix="packing-", dir=out / _WORK) as folder:
        packed = PackedWriter(Path(folder), facts.classes)
        with write_frozen(out / MANIFEST, facts) if rewrite else nullcontext() as parquet:
            rows = journal.rows()
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                if parquet is not None:
                    parquet(some)
                for row in some:
                    packed.append(row)
        packed.finish(out / PACKED, facts.fingerprint, tie_of(out / MANIFEST))
