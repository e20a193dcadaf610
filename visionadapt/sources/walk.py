"""Walk a folder tree without ever leaving it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from visionadapt.records import natural_key

PICTURE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"}
)
_JUNK = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)


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


def walk(root: Path, below: str = "", inside: tuple[Path, ...] = ()) -> Iterator[Found]:
    """Yield every file below `root/below` in natural order; hidden and junk files are passed over.

    Symbolic links are followed inside the root only; a link that leaves it, is broken or leads back to a folder that
    contains it is yielded with its problem, as is a folder that cannot be listed. `inside` are the folders, as they
    really are, by way of which the walk came here.
    """
    inside = (*inside, (root / below).resolve())
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: natural_key(entry.name))
    except OSError as error:
        yield Found(below or ".", f"the folder cannot be listed ({error.strerror})")
        return
    for entry in entries:
        if is_ignored(entry.name):
            continue
        location = os.path.join(below, entry.name)  # noqa: PTH118 - names stay as they are on disk
        problem = link_problem(root, location, inside) if entry.is_symlink() else None
        if problem is None and entry.is_dir():
            yield from walk(root, location, inside)
        else:
            yield Found(location, problem)


def link_problem(root: Path, location: str | Path, inside: Iterable[Path]) -> str | None:
    """Return why a symbolic link must not be followed, or None where it stays in the root and leads to no loop.

    `inside` are the folders, as they really are, by way of which the link was reached.
    """
    try:
        target = (root / location).resolve(strict=True)
    except (OSError, RuntimeError):
        return "a symbolic link that leads nowhere"
    if not target.is_relative_to(root.resolve()):
        return "a symbolic link that leaves the folder"
    if any(folder.is_relative_to(target) for folder in inside):
        return "a symbolic link to a folder that contains it"
    return None
