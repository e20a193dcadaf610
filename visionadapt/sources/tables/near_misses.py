"""What may be meant by a path that leads to no file: another case, suffix or folder. For messages only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from visionadapt.sources.tables.paths import URL, FilesBelow
from visionadapt.sources.walk import IMAGE_SUFFIXES, is_ignored
from visionadapt.system.storage import MISSING

_MOST_FILES = 50_000
_MOST_FOLDERS = 200
_MOST_PARTS = 3
_USUAL = ("", ".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".tif", ".webp")


def near_miss(files: FilesBelow, text: str) -> str | None:
    """Return the file that a path without one may mean, and the option that finds it; None where there is none.

    It looks at the names of files below the folder, in its parent, and in the folders there.
    """
    slashed = files.completed(text).strip().replace("\\", "/")
    found = files.find(text)
    if found.problem is None:
        return None
    if found.problem == URL:
        return "download the images, and name their files in the table"
    if found.problem != MISSING:
        ends = ("/".join(PurePosixPath(slashed).parts[-count:]) for count in range(_MOST_PARTS, 0, -1))
        beside = next((told for end in ends if (told := _beside(files.root, end)) is not None), None)
        return (
            _inside(files, slashed)
            or _outside(files, slashed)
            or (None if beside is None else f"{beside}, and write the paths from there on")
        )
    key = files.key(text)
    below = _below(files.root, key)
    if below is not None and ": give " in below:
        return below
    return _beside(files.root, key) or _inside(files, slashed) or below


def _below(root: Path, key: str) -> str | None:
    """A file below the folder with the same name, but for case and suffix; the one whose folders agree best."""
    wanted = [_folded(part) for part in PurePosixPath(key).parts]
    stem = _folded(_stem(PurePosixPath(key).name))
    best, most = None, -1
    for path in islice(_files(root), _MOST_FILES):
        if _folded(_stem(path.name)) == stem:
            parts = [_folded(part) for part in path.parts]
            same = sum(1 for _ in _common_end(parts[:-1], wanted[:-1])) + (parts == wanted)
            if same > most:
                best, most = path.as_posix(), same
    return None if best is None else _told(root, best, key)


def _told(root: Path, found: str, key: str) -> str:
    """What is there, and the options with which `key` finds it."""
    suffix = PurePosixPath(found).suffix
    options = []
    for added in ("", suffix):
        if found == key + added or found.endswith(f"/{key}{added}"):
            before = found[: len(found) - len(key + added)].rstrip("/")
            options = ([f"root={root / before}"] if before else []) + ([f"suffix={added}"] if added else [])
            break
    return f"there is {found}" + (f": give {', '.join(options)}" if options else "")


def _beside(root: Path, key: str) -> str | None:
    """A file in the parent of the folder, or in another folder there."""
    above = Path(os.path.abspath(root)).parent  # noqa: PTH100 - links stay as they are written
    try:
        folders = sorted(entry.path for entry in os.scandir(above) if entry.is_dir() and not is_ignored(entry.name))
    except OSError:
        return None
    for folder in (str(above), *folders[:_MOST_FOLDERS]):
        for suffix in _USUAL:
            if os.path.isfile(f"{folder}/{key}{suffix}"):  # noqa: PTH113 - a Path refuses some texts
                return f"there is {folder}/{key}{suffix}: give root={folder}" + (f", suffix={suffix}" if suffix else "")
    return None


def _inside(files: FilesBelow, text: str) -> str | None:
    """A file below the folder that the end of a path names, as where the path is of another machine."""
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for start in range(1, len(parts)):
        tail = "/".join(parts[start:])
        if files.find(tail).problem is None:
            return f"there is {tail} in {files.root}: write the paths from there on"
    return None


def _outside(files: FilesBelow, text: str) -> str | None:
    """The folder that holds both the table's folder and the path, by their text only."""
    if not (text.startswith("/") or os.path.normpath(text).startswith("..")):
        return None
    both = os.path.commonpath((files.home, os.path.normpath(os.path.join(files.home, text))))  # noqa: PTH118
    return None if both == "/" else f"only files below {files.root} are read: give root={both}"


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder, relative to it; in the order of their names."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            yield Path(os.path.relpath(os.path.join(folder, name), root))  # noqa: PTH118 - quick


def _common_end(first: list[str], second: list[str]) -> Iterator[str]:
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            return
        yield one


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
