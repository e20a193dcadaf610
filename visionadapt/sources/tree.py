"""`Tree`: the folders below a root, and whether they hold images, without reading any file."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionadapt.core import spec
from visionadapt.errors import SourceError
from visionadapt.sources.keys import key_of
from visionadapt.sources.walk import LEAVES, NOWHERE, Found, is_ignored, is_image, is_sidecar, link_problem, walk
from visionadapt.system.text import for_shell


@dataclass(frozen=True)
class Place:
    """A folder that is on no disk, as messages name it: in a bucket.

    Attributes:
        url: where it is.
        kind: name of the source that takes it.
    """

    url: str
    kind: str

    def __truediv__(self, below: str) -> Place:
        return Place(joined(self.url.rstrip("/"), below) if below else self.url, self.kind)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Tree:
    """The folders below a root.

    Attributes:
        root: the root.
        follow_links: whether symbolic links may leave it.
        without: names of folders that are left out, in Unicode NFC.
        lists: the lists of images that are used, each with its split; for messages, which name them again.
    """

    root: Path | Place
    follow_links: bool = False
    without: frozenset[str] = frozenset()
    lists: Sequence[tuple[str, str]] = ()

    def walk(self, below: str = "", without: Container[str] = frozenset()) -> Iterator[Found]:
        """Yield every file below `root/below` in natural order, as `walk.walk` does."""
        return walk(self._root, below, self.follow_links, without)

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in `root/below`, without links that must not be followed.

        Raises:
            SourceError: the root cannot be listed; other folders that cannot be listed are empty.
        """
        try:
            entries = self._entries(below)
        except SourceError:
            if not below:
                raise
            return []
        return sorted(entry.name for entry in entries if self._is_folder(below, entry))

    def check_links(self, below: str = "") -> None:
        """Raise SourceError if a folder in `root/below` would be left out because it is a link."""
        for entry in self._entries(below):
            if not entry.is_symlink() or key_of(entry.name) in self.without:
                continue
            path, problem = self.root / below / entry.name, self._link_problem(below, entry)
            if problem == LEAVES and entry.is_dir():
                raise SourceError(
                    f"{path} is a symbolic link to a folder outside of {self.root}: give "
                    f"{spelled(self.root, {'follow_links': True})} to use it, or remove the link"
                )
            if problem == NOWHERE and not is_image(entry.name):
                raise SourceError(f"{path} is a symbolic link that leads nowhere; restore its target, or remove it")

    def has_files(self, below: str) -> bool:
        """Whether some file below `root/below` may be an image, or cannot be seen."""
        waiting = [below]
        while waiting:
            here = waiting.pop()
            try:
                entries = self._entries(here)
            except SourceError:
                return True
            for entry in entries:
                if self._is_folder(here, entry):
                    waiting.append(joined(here, entry.name))
                elif not is_sidecar(entry.name) and self._link_problem(here, entry) is None:
                    return True
        return False

    def images(self, below: str = "") -> list[str]:
        """Return the names of the files in `root/below` that are named like images."""
        named = (entry for entry in self._entries(below) if is_image(entry.name))
        return sorted(entry.name for entry in named if not self._is_folder(below, entry))

    def sidecars(self, below: str = "") -> list[str]:
        """Return the names of the files in `root/below` whose suffixes say that they tell about images."""
        named = (entry for entry in self._entries(below) if is_sidecar(entry.name))
        return sorted(entry.name for entry in named if not self._is_folder(below, entry))

    def classes(self, below: str) -> list[str]:
        """Return the names of the folders in `root/below` that hold files which may be images."""
        return [name for name in self.folders(below) if self.has_files(joined(below, name))]

    @property
    def _root(self) -> Path:
        return Path(str(self.root))

    def _entries(self, below: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self._root}/{below}") as entries:  # a Path of a deep folder takes long to make
                return [entry for entry in entries if not is_ignored(entry.name)]
        except OSError as error:
            raise SourceError(f"{self.root / below} cannot be listed ({error.strerror})") from error

    def _is_folder(self, below: str, entry: os.DirEntry[str]) -> bool:
        """Whether something is a folder that is searched."""
        linked = entry.is_symlink()
        if not (os.path.isdir(entry.path) if linked else entry.is_dir()):  # noqa: PTH112 - a loop of links is no folder
            return False
        followed = not linked or self._link_problem(below, entry) is None
        return followed and not (self.without and key_of(entry.name) in self.without)

    def _link_problem(self, below: str, entry: os.DirEntry[str]) -> str | None:
        return link_problem(self._root, joined(below, entry.name), self.follow_links) if entry.is_symlink() else None


def joined(below: str, name: str) -> str:
    """Return the path of a file or folder in `below`, which is empty for the root."""
    return f"{below}/{name}" if below else name


def spelled(root: Path | Place, options: Mapping[str, object]) -> str:
    """Return the option that gives a source of class folders, for messages.

    >>> print(spelled(Path("photos (1)"), {"train": ["first half"], "val": ["b"]}))
    --data "folder('photos (1)', train=first half, val=b)"
    """
    single = {name: value[0] for name, value in options.items() if isinstance(value, list | tuple) and len(value) == 1}
    given = {"root": str(root), **options, **single}
    text = spec.written(root.kind if isinstance(root, Place) else "folder", given).replace("root=", "", 1)
    return f"--data {for_shell(text)}"
