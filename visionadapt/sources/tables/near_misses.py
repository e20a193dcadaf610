"""What may be meant by a path that leads to no file: another case, suffix or folder. For messages only."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from visionadapt.core import spec
from visionadapt.sources.tables.paths import LEAVES, URL, FilesBelow
from visionadapt.sources.walk import IMAGE_SUFFIXES, is_ignored
from visionadapt.system.storage import MISSING

_MOST_FILES = 50_000
_MOST_FOLDERS = 200
_MOST_PARTS = 3
_USUAL = ("", ".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".tif", ".webp")


@dataclass(frozen=True)
class NearMiss:
    """What a path without a file may mean; `str` says it.

    Attributes:
        found: the file, or what is to be done.
        options: `root` and `suffix` with which its table finds it.
        shorten: whether the paths must begin further on, too.
    """

    found: str
    options: Mapping[str, Any] = field(default_factory=dict)
    shorten: bool = False

    def __str__(self) -> str:
        given = spec.written("", self.options)[1:-1]
        steps = ([f"give {given}"] if given else []) + (["write the paths from there on"] if self.shorten else [])
        return f"{self.found}{': ' if steps else ''}{', and '.join(steps)}"


def near_miss(files: FilesBelow, text: str) -> NearMiss | None:
    """Return what a path without a file may mean; None where it has one, or means nothing that is there.

    It looks at the names of files below the folder, in its parent, and in the folders there.
    """
    slashed = files.completed(text).strip().replace("\\", "/")
    problem = files.find(text).problem
    if problem == URL:
        return NearMiss("download the images, and name their files in the table")
    if problem == LEAVES:
        tails = ("/".join(PurePosixPath(slashed).parts[-count:]) for count in range(_MOST_PARTS, 0, -1))
        guesses = (_first(_beside(files.root, tail)) or _first(_below(files.root, tail)) for tail in tails)
        elsewhere = (replace(guess, shorten=True) for guess in guesses if guess is not None)
        return _inside(files, slashed) or _outside(files, slashed) or next(elsewhere, None)
    if problem != MISSING:
        return None
    below = _first(_below(files.root, files.key(text)))
    exact = below if below is not None and below.options else _first(_beside(files.root, files.key(text)))
    return exact or _inside(files, slashed) or below


def candidates(files: FilesBelow, text: str) -> Iterator[NearMiss]:
    """Yield every file that a path without one may mean and that options find, those below the folder first."""
    if files.find(text).problem == MISSING:
        key = files.key(text)
        yield from (miss for miss in (*_below(files.root, key), *_beside(files.root, key)) if miss.options)


def _first(found: Iterator[NearMiss]) -> NearMiss | None:
    return next(found, None)


def _below(root: Path, key: str) -> Iterator[NearMiss]:
    """Files below the folder with the same name, but for case, suffix and zeros; best folders first."""
    wanted = [_folded(part) for part in PurePosixPath(key).parts]
    stem = _plain(key)
    found: list[tuple[int, str]] = []
    for path in islice(_files(root), _MOST_FILES):
        if _plain(path.name) == stem:
            parts = [_folded(part) for part in path.parts]
            same = sum(1 for _ in _common_end(parts[:-1], wanted[:-1])) + (parts == wanted)
            found.append((-same, path.as_posix()))
    for _, best in sorted(found, key=itemgetter(0)):
        yield _told(root, key, best)


def _told(root: Path, key: str, path: str) -> NearMiss:
    """What a file below the folder means for a key."""
    for suffix in ("", PurePosixPath(path).suffix):
        if f"/{path}".endswith(f"/{key}{suffix}"):
            before = path[: len(path) - len(key + suffix)].rstrip("/")
            return NearMiss(f"there is {path}", _options(str(root / before) if before else "", suffix))
    return NearMiss(f"there is {path}")


def _beside(root: Path, key: str) -> Iterator[NearMiss]:
    """Files in the parent of the folder, or in another folder there."""
    here = os.path.abspath(root)  # noqa: PTH100 - links stay as they are written
    above = Path(here).parent
    try:
        others = (entry for entry in os.scandir(above) if entry.path != here and not is_ignored(entry.name))
        folders = sorted(entry.path for entry in others if entry.is_dir())
    except OSError:
        return
    for folder in (str(above), *folders[:_MOST_FOLDERS]):
        for suffix in _USUAL:
            if os.path.isfile(f"{folder}/{key}{suffix}"):  # noqa: PTH113 - a Path refuses some texts
                yield NearMiss(f"there is {folder}/{key}{suffix}", _options(folder, suffix))


def _inside(files: FilesBelow, text: str) -> NearMiss | None:
    """A file below the folder that the end of a path names, as where the path is of another machine."""
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    tails = ("/".join(parts[start:]) for start in range(1, len(parts)))
    found = next((tail for tail in tails if files.find(tail).problem is None), None)
    return None if found is None else NearMiss(f"there is {found} in {files.root}", shorten=True)


def _outside(files: FilesBelow, text: str) -> NearMiss | None:
    """The folder that holds both the table's folder and the path, by their text."""
    path = os.path.normpath(os.path.join(files.home, text))  # noqa: PTH118 - a Path does not resolve `..`
    both = os.path.commonpath((files.home, path))
    suffix = next((suffix for suffix in _USUAL if os.path.isfile(path + suffix)), "") if both != "/" else ""  # noqa: PTH113
    return None if both == "/" else NearMiss(f"only files below {files.root} are read", _options(both, suffix))


def _options(root: str, suffix: str) -> dict[str, str]:
    return {name: value for name, value in (("root", root), ("suffix", suffix)) if value}


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


def _plain(key: str) -> str:
    """A file's name without suffix, case, and what numbers lose where a table is read as numbers."""
    path = PurePosixPath(unquote(key))
    stem = _folded(path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name)
    return re.sub(r"^0+(?=[0-9]+$)", "", re.sub(r"(?<=[0-9])\.0$", "", stem))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
