"""Walk a folder tree without ever leaving it, and read a regular file without hanging on anything else."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visionadapt.errors import ImageError
from visionadapt.records import natural_key

PICTURE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"}
)
_JUNK = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True)
class Found:
    """One file of a tree: its path below the root as it is on disk, and why it cannot be a row (None where it can)."""

    location: str
    problem: str | None = None


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that operating systems leave behind."""
    return name.startswith(".") or name.casefold() in _JUNK


def key_of(location: str) -> str:
    """Return the POSIX path in Unicode NFC; bytes of a name that are no UTF-8 are written as escapes."""
    text = os.fsencode(location).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text.replace(os.sep, "/"))


def walk(root: Path, below: str = "") -> Iterator[Found]:
    """Yield every file below `root/below` in natural order; hidden and junk files are passed over.

    Symbolic links are followed inside the root only; a link that leaves it, is broken or leads back to a folder that
    contains it is yielded with its problem, as is a folder that cannot be listed.
    """
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: natural_key(entry.name))
    except OSError as error:
        yield Found(below or ".", f"the folder cannot be listed ({error.strerror})")
        return
    for entry in entries:
        if is_ignored(entry.name):
            continue
        location = os.path.join(below, entry.name)  # noqa: PTH118 - names stay as they are on disk
        problem = link_problem(root, location) if entry.is_symlink() else None
        if problem is None and entry.is_dir():
            yield from walk(root, location)
        else:
            yield Found(location, problem)


def link_problem(root: Path, location: str | Path) -> str | None:
    """Return why a symbolic link must not be followed, or None where it stays inside the root."""
    link = root / location
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a symbolic link that leads nowhere"
    top = root.resolve()
    if not target.is_relative_to(top):
        return "a symbolic link that leaves the folder"
    if link.parent.resolve().is_relative_to(target):
        return "a symbolic link to a folder that contains it"
    return None


def read_file(path: Path, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        ImageError: it is missing, unreadable, no regular file, or larger than `max_bytes`; nothing hangs.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(name, f"is {_SPECIAL.get(stat.S_IFMT(status.st_mode), 'no regular file')}, not a file")
            if status.st_size > max_bytes:
                raise ImageError(name, f"has {status.st_size:,} bytes, more than the limit of {max_bytes:,}")
            return file.read(max_bytes)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(name, f"cannot be read ({reason})") from error
