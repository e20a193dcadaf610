"""Untrusted file paths, as tables and databases have them: found below one folder, or refused."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from visionadapt.errors import ImageError, without_secrets
from visionadapt.sources.keys import key_of
from visionadapt.sources.walk import Found
from visionadapt.system.hub import is_blob
from visionadapt.system.storage import MISSING, file_problem, file_version, read_file

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
URL = "is a URL, and only files in the table's folder are read"
LEAVES = "leads out of the folder"


class FilesBelow:
    """The files below a folder, by untrusted paths.

    A path is relative to the folder, or absolute and below it; one that leads out of it from there, such as
    `../images/1.jpg`, is relative to `home`. `..` is resolved only in the text, `~/` is the user's home folder,
    variables mean nothing. The file system is not asked about a path that is not below the folder by its text; a
    symbolic link is followed where it stays inside, or leads from a snapshot of the Hugging Face hub to the files of
    the same repository. A path written on Windows, or in another Unicode normal form than the file's name, finds its
    file.

    Args:
        root: the folder.
        max_bytes: larger files are refused.
        suffix: ends the name of every file; added to paths without it.
        home: the folder of the table; by default `root`.
    """

    def __init__(
        self, root: str | Path, max_bytes: int, suffix: str | None = None, home: str | Path | None = None
    ) -> None:
        self.root, self.max_bytes, self.suffix = Path(root), max_bytes, suffix or ""
        self.base = os.path.abspath(root)  # noqa: PTH100
        self._bases = tuple(dict.fromkeys((self.base, os.path.realpath(root))))
        self.home = os.path.abspath(root if home is None else home)  # noqa: PTH100
        self._real = lru_cache(maxsize=4096)(os.path.realpath)

    @property
    def roots(self) -> Sequence[Path]:
        """The folders that paths are relative to."""
        return [self.root]

    def beside(self, folder: str) -> FilesBelow:
        """Return the same files as a table names them that is in a folder below `home`."""
        return FilesBelow(self.root, self.max_bytes, self.suffix, os.path.join(self.home, folder))  # noqa: PTH118

    def key(self, text: str) -> str:
        """Return the key of a path: relative, POSIX, without `..`, Unicode NFC; empty where the text names nothing.

        Of a URL given by mistake, neither user nor password nor query is part of the key.
        """
        shown = without_secrets(text) if _SCHEME.match(text.strip()) else self.completed(text)
        plain = shown.strip().replace("\\", "/").replace("\0", "\\x00")
        return key_of(self._relative(plain) or os.path.normpath(f"/{plain}").lstrip("/"))

    def find(self, text: str) -> Found:
        """Return where the file of a path is below the folder, and why it cannot be read (None where it can)."""
        if not text.strip():
            return Found(text, "no file is named")
        if "\0" in text:
            return Found(text, "the path holds a NUL character")
        if _SCHEME.match(text.strip()):
            return Found(text, URL)
        found = Found(text, LEAVES)
        for spelling in _spellings(self.completed(text)):
            location = self._relative(spelling)
            if location is None:
                return Found(text, LEAVES)
            found = Found(location, self._problem(location))
            if found.problem != MISSING:
                break
        return found

    def location(self, text: str) -> str | None:
        """Return the path below the folder that a text names, whether or not there is a file; None for others and URLs.

        The file system is not asked.
        """
        return None if _SCHEME.match(text.strip()) else self._relative(self.completed(text))

    def completed(self, text: str) -> str:
        """Return a path with the user's home folder in place of `~/`, and with the suffix."""
        stripped = text.strip()
        if stripped.startswith("~/"):
            text = os.path.expanduser(stripped)  # noqa: PTH111 - a Path drops what `..` needs
        if not self.suffix or not stripped or stripped.casefold().endswith(self.suffix.casefold()):
            return text
        return text.rstrip() + self.suffix

    def read(self, location: str, key: str) -> bytes:
        """Return a file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        try:
            path = self._path(location)
        except ValueError as error:
            raise ImageError(key, f"no file can have this name ({error})") from error
        if path is None:
            raise ImageError(key, LEAVES)
        return read_file(path, key, self.max_bytes)

    def version(self, location: str) -> str | None:
        """Return a file's size and times as a string, without reading it; None where there is no such file."""
        try:
            path = self._path(location)
        except ValueError:
            return None
        return None if path is None else file_version(path)

    def _path(self, location: str) -> Path | None:
        """The file itself, with all links resolved; None where it is not below the folder."""
        path = os.path.realpath(os.path.join(self.base, self._relative(location) or "."))  # noqa: PTH118
        return Path(path) if self._is_inside(path) else None

    def _relative(self, text: str) -> str | None:
        """The path below the folder, by its text only; None where it leaves the folder."""
        for base in self._bases if "\0" not in text else ():
            path = os.path.normpath(os.path.join(base, text))  # noqa: PTH118 - a Path does not resolve `..`
            if path.startswith(_with_slash(base)):
                return path[len(_with_slash(base)) :].lstrip("/")
        beside = os.path.normpath(os.path.join(self.home, text))  # noqa: PTH118
        for base in self._bases if "\0" not in text and os.path.normpath(text).startswith("../") else ():
            if beside.startswith(_with_slash(base)):
                return beside[len(_with_slash(base)) :].lstrip("/")
        return None

    def _problem(self, location: str) -> str | None:
        folder, name = os.path.split(os.path.join(self.base, location))  # noqa: PTH118 - a Path is slow here
        path = os.path.join(self._real(folder), name)  # noqa: PTH118
        if os.path.islink(path):  # noqa: PTH114
            path = os.path.realpath(path)
        if not self._is_inside(path):
            return "a symbolic link that leaves the folder"
        return file_problem(Path(path), self.max_bytes)

    def _is_inside(self, path: str) -> bool:
        return path.startswith(_with_slash(self._bases[-1])) or is_blob(self._bases[-1], path)


class FilesAmong(FilesBelow):
    """The files below several folders, by untrusted paths relative to each of them.

    Where they are (`location`) is relative to `root`, the folder that holds all. A path that names a file in two of
    them is refused.
    """

    def __init__(
        self, roots: Sequence[str | Path], max_bytes: int, suffix: str | None = None, home: str | Path | None = None
    ) -> None:
        super().__init__(common_folder(roots), max_bytes, suffix, home)
        self.parts = tuple(FilesBelow(root, max_bytes, suffix, home) for root in roots)

    @property
    def roots(self) -> Sequence[Path]:
        return [part.root for part in self.parts]

    def beside(self, folder: str) -> FilesAmong:
        """Return the same files as a table names them that is in a folder below `home`."""
        return FilesAmong(self.roots, self.max_bytes, self.suffix, os.path.join(self.home, folder))  # noqa: PTH118

    def key(self, text: str) -> str:
        """Return the key of a path as one folder has it; of an absolute path as the folder that holds all has it."""
        return super().key(text) if text.strip().startswith(("/", "..")) else self.parts[0].key(text)

    def find(self, text: str) -> Found:
        """Return where the only file of a path is, and why it cannot be read (None where it can)."""
        found = {self._located(part, each): (part, each) for part in self.parts for each in [part.find(text)]}
        usable = [place for place, (_, each) in found.items() if each.problem is None]
        if len(usable) > 1:
            return Found(text, f"is in {' and in '.join(str(found[place][0].root) for place in usable)}")
        if usable:
            return Found(usable[0])
        return max((each for _, each in found.values()), key=lambda each: each.problem not in {MISSING, LEAVES})

    def _located(self, part: FilesBelow, found: Found) -> str:
        return os.path.relpath(os.path.join(part.base, found.location), self.base)  # noqa: PTH118

    def _path(self, location: str) -> Path | None:
        here = os.path.join(self.base, location)  # noqa: PTH118
        return next((path for part in self.parts if (path := part._path(here)) is not None), None)


class FilesOfTables(FilesBelow):
    """The files that several tables name by untrusted paths, each below the folder of its own table.

    `by_folder` finds them; this object reads what was found.

    Args:
        above: the folder that holds all tables; keys and locations are relative to it.
        folders: those of the tables, as POSIX paths below it, empty for itself.
        max_bytes, suffix: as in `FilesBelow`.
    """

    def __init__(self, above: str | Path, folders: Sequence[str], max_bytes: int, suffix: str | None = None) -> None:
        super().__init__(above, max_bytes, suffix)
        self._folders = folders
        self._tables = self.by_folder()

    def by_folder(self) -> dict[str, FilesBelow]:
        """Return the files of each table by its folder, for one pass: they remember where links lead."""
        return {folder: _FilesOfTable(self.root, folder, self.max_bytes, self.suffix) for folder in self._folders}

    @property
    def roots(self) -> Sequence[Path]:
        """The folders of the tables."""
        return [files.root for files in self._tables.values()]

    def _path(self, location: str) -> Path | None:
        """The file itself, with all links resolved; None where it is below the folder of none of the tables."""
        here = os.path.join(self.base, location)  # noqa: PTH118
        return next((path for files in self._tables.values() if (path := files._path(here)) is not None), None)


class _FilesOfTable(FilesBelow):
    """The files that a table in a folder names, with keys and locations relative to the folder above."""

    def __init__(self, above: str | Path, folder: str, max_bytes: int, suffix: str | None) -> None:
        super().__init__(Path(above) / folder, max_bytes, suffix)
        self._before = f"{folder}/" if folder else ""

    def key(self, text: str) -> str:
        """Return the key of a path, as of a path in the folder above."""
        own = super().key(text)
        return key_of(self._before) + own if own else ""

    def find(self, text: str) -> Found:
        """Return where the file of a path is below the folder above, and why it cannot be read."""
        found = super().find(text)
        return found if found.problem is not None else Found(self._before + found.location)


class FilesAnywhere(FilesBelow):
    """The files of trusted paths: relative to a folder, or absolute and anywhere."""

    def key(self, text: str) -> str:
        """Return the path relative to the folder where it is below it; otherwise the absolute one without its `/`."""
        return super().key(text).lstrip("/")

    def _relative(self, text: str) -> str | None:
        below = super()._relative(text)
        if below is not None or "\0" in text:
            return below
        return os.path.normpath(os.path.join(self.base, text))  # noqa: PTH118 - a Path does not resolve `..`

    def _is_inside(self, path: str) -> bool:
        return True


def common_folder(roots: Sequence[str | Path]) -> Path:
    """Return the only folder of some, or the one that holds all of them."""
    return Path(roots[0] if len(roots) == 1 else os.path.commonpath([os.path.abspath(root) for root in roots]))  # noqa: PTH100


def _with_slash(folder: str) -> str:
    return folder.rstrip("/") + "/"


def _spellings(text: str) -> dict[str, None]:
    slashed = text.strip().replace("\\", "/")
    return dict.fromkeys([text, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))])
