"""Walk a folder tree without leaving it, and tell image files from others by their names."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from visionadapt.core.naming import natural_key
from visionadapt.system.hub import is_blob

IMAGE_SUFFIXES = frozenset(
    {
        ".apng",
        ".avif",
        ".bmp",
        ".dcm",
        ".dib",
        ".dicom",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
    }
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"}
)
_SIDECARS = frozenset(
    {".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".log", ".md", ".ndjson", ".parquet"}
    | {".py", ".rst", ".sqlite", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".xmp", ".yaml", ".yml"}
)
_JUNK = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)

LEAVES = "a symbolic link that leaves the folder (follow_links=true follows it)"
NOWHERE = "a symbolic link that leads nowhere"

_MOST_LINKS = 2


@dataclass(frozen=True)
class Found:
    """A file that a row may refer to.

    Attributes:
        location: where it is; of a file in a folder, the path below the root as it is on disk.
        problem: why it cannot be used; None where it can.
    """

    location: str
    problem: str | None = None

    def location_for(self, key: str) -> str | None:
        """The location of a `Record` with this key: None where it is the key itself."""
        return None if self.location == key else self.location


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.casefold() in _JUNK


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, such as `.jpg`."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path is slow here


def is_image(name: str) -> bool:
    """Whether a file is named like an image."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_sidecar(name: str) -> bool:
    """Whether a file's suffix says that it is no image, but tells about images: a table, annotations, notes."""
    return suffix_of(name) in _SIDECARS


def walk(
    root: Path, below: str = "", follow_links: bool = False, without: Container[str] = frozenset()
) -> Iterator[Found]:
    """Yield every file below `root/below` in natural order; hidden and junk files are skipped.

    Symbolic links are followed only inside the root, from a snapshot of the Hugging Face hub to the files of the same
    repository in the hub's cache, or with `follow_links` anywhere. A link that must not be followed,
    is broken, leads back to a folder that contains it, or to a folder from inside two such links (few links could make
    very many paths) is yielded with its problem, as is a folder that cannot be listed. Folders may be nested to any
    depth. What `without` names, as paths below the root, is left out.
    """
    waiting: list[Found | str] = [below]
    while waiting:
        here = waiting.pop()
        if isinstance(here, Found):
            yield here
        else:
            waiting.extend(reversed(_listed(root, here, follow_links, without)))


def _listed(root: Path, folder: str, follow_links: bool, without: Container[str]) -> list[Found | str]:
    """The content of a folder in natural order; folders to enter as their paths below the root."""
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
        if location in without:
            continue
        problem = link_problem(root, location, follow_links) if entry.is_symlink() else None
        listed.append(location if problem is None and entry.is_dir() else Found(location, problem))
    return listed


def link_problem(root: Path, location: str | Path, follow_links: bool = False) -> str | None:
    """Return why a symbolic link must not be followed, or None where it leads to no loop and stays in the root.

    With `follow_links` it may leave the root; in a snapshot of the hub's cache, to a blob of its repository.
    """
    try:
        target = (root / location).resolve(strict=True)
    except (OSError, RuntimeError):
        return NOWHERE
    home = None if follow_links else root.resolve()
    if home is not None and not target.is_relative_to(home):
        return None if is_blob(str(home), str(target)) and target.is_file() else LEAVES
    above = PurePath(location).parents
    if any((root / folder).resolve().is_relative_to(target) for folder in above):
        return "a symbolic link to a folder that contains it"
    if target.is_dir() and sum((root / folder).is_symlink() for folder in above[:-1]) >= _MOST_LINKS:
        return f"a symbolic link to a folder, inside {_MOST_LINKS} others"
    return None
