"""Walk a folder tree without ever leaving it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

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


def walk(root: Path, below: str = "") -> Iterator[Found]:
    """Yield every file below `root/below` in natural order; hidden and junk files are passed over.

    Symbolic links are followed inside the root only; a link that leaves it, is broken or leads back to a folder that
    contains it is yielded with its problem, as is a folder that cannot be listed. Folders may be nested to any depth.
    """
    waiting: list[Found | str] = [below]
    while waiting:
        here = waiting.pop()
        if isinstance(here, Found):
            yield here
        else:
            waiting.extend(reversed(_listed(root, here)))


def _listed(root: Path, folder: str) -> list[Found | str]:
    """What a folder holds, in natural order; folders to go into as their paths below the root."""
    try:
        with os.scandir(root / folder) as found:
            entries = sorted(found, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        return [Found(folder or ".", f"the folder cannot be listed ({error.strerror})")]
    listed: list[Found | str] = []
    for entry in entries:
        if is_ignored(entry.name):
            continue
        location = os.path.join(folder, entry.name)  # noqa: PTH118 - names stay as they are on disk
        problem = link_problem(root, location) if entry.is_symlink() else None
        listed.append(location if problem is None and entry.is_dir() else Found(location, problem))
    return listed


def link_problem(root: Path, location: str | Path) -> str | None:
    """Return why a symbolic link must not be followed, or None where it stays in the root and leads to no loop."""
    try:
        target = (root / location).resolve(strict=True)
    except (OSError, RuntimeError):
        return "a symbolic link that leads nowhere"
    if not target.is_relative_to(root.resolve()):
        return "a symbolic link that leaves the folder"
    if any((root / folder).resolve().is_relative_to(target) for folder in PurePath(location).parents):
        return "a symbolic link to a folder that contains it"
    return None
