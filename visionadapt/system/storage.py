"""Atomic writes that survive a crash or a full disk, and reads that never block."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from visionadapt.errors import ImageError, RunError, UsageError
from visionadapt.system.locks import HAS_LOCKS, lock

MISSING = "no such file"
_UNFINISHED = ".writing-"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(path: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a regular image file; pipes and devices are rejected without blocking.

    Raise ImageError if `name` is missing, unreadable, not a regular file, or larger than `max_bytes`.
    """
    try:
        _check_regular(path.stat(), name, max_bytes)
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            _check_regular(os.fstat(file.fileno()), name, max_bytes)
            return file.read(max_bytes)
    except (OSError, ValueError) as error:
        raise ImageError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def file_problem(path: Path, max_bytes: int) -> str | None:
    """Return why `read_file` would reject a file, without opening it: `MISSING` if there is none, None if usable."""
    try:
        _check_regular(path.stat(), str(path), max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except ImageError as error:
        return error.reason
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def file_version(path: Path) -> str | None:
    """Return a string that changes when a file does, without reading the file; None if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_regular(status: os.stat_result, name: str, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(name, f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a regular file")
    if status.st_size > max_bytes:
        raise ImageError(name, f"has {status.st_size:,} bytes, more than the limit max_bytes={max_bytes:,}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which replaces `path` atomically at the end of the block.

    The file is written next to `path`, synced and renamed; then the folder is synced. If the block raises, `path` is
    unchanged.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    beside = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
    try:
        with _made_and_locked(beside) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if HAS_LOCKS:  # renamed while it is locked, so that nobody takes it for the rest of a killed process
                beside.replace(path)
        if not HAS_LOCKS:
            beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{path} cannot be written ({reason}); what stood there before still does") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _made_and_locked(path: Path) -> BinaryIO:
    """Make a file and lock it; once more where `remove_unfinished` of another process removed it in between."""
    while True:
        file = path.open("x+b")
        with suppress(OSError):
            lock(file)
        if path.exists():
            return file
        file.close()


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """Yield the path of a folder to make, which takes the place of `out` at the end of the block.

    If the block raises, `out` is unchanged.

    Raises:
        RunError: the disk is full or the folder cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=out.parent) as beside:
            fresh = Path(beside) / "new"
            yield fresh
            if out.exists():
                out.rename(Path(beside) / "old")
            fresh.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise RunError(f"{out} cannot be made ({error.strerror}); give another --out") from error


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing in a folder; live ones lock theirs."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), path.open("rb") as file:
            if HAS_LOCKS and lock(file, wait=False):
                path.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically; stray bytes of file names are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def json_text(value: Any) -> str:
    """Return readable JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, atomically."""
    write_text(path, json_text(value))


def check_outside(option: str, folder: Path, images: str | Path) -> None:
    """Raise UsageError if the folder that an option names is in the folder of the images."""
    if folder.resolve().is_relative_to(Path(images).resolve()):
        raise UsageError(f"{option} {folder} is in {images}, among the images; name a folder elsewhere")


def sync_folder(folder: Path) -> None:
    """Make sure that a rename in `folder` survives a power cut, where folders can be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
