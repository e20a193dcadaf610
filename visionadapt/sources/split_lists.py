"""Lists of the images of each split, as published sets have them beside their class folders: `meta/train.txt`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from visionadapt.core.naming import listed
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import mode_of
from visionadapt.sources.keys import key_of
from visionadapt.sources.tables.contents import encoding_of, kind_of, readable
from visionadapt.sources.tables.guessing import guessed_columns, likely_data
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import DELIMITERS, SUFFIXES, TableFile
from visionadapt.sources.walk import is_image
from visionadapt.system.text import counted

UNLISTED = "is in none of the lists"
"""Begins the problem of an image that no list names."""
_LONGEST = 4096
"""Characters of a line: the system opens no longer path."""
_LARGEST = 1 << 28
"""Bytes of a list: the paths of some millions of images."""
_SAMPLE = 100
"""Rows to guess the column of paths from."""


@dataclass(frozen=True)
class SplitList:
    """A file that names the images of a split: text with one path per line, or a table with a column of paths.

    A table is CSV, TSV, or text such as `cat/1.jpg 0`; its other columns mean nothing here.

    Attributes:
        split: train, val or test.
        path: the file.
    """

    split: str
    path: Path

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield the place and the text of each path, such as `line 17` and `cat/1.jpg`; blank lines are none.

        Bytes that are no UTF-8 are read as those of a file's name. Nothing else than the list is read.

        Raises:
            SourceError: the file is missing, too large or of another kind, or a line is too long to be a path.
        """
        if not stat.S_ISREG(mode_of("list", self.path)):
            raise SourceError(f"{self.path} is no regular file")
        size = self.path.stat().st_size
        if size > _LARGEST:
            raise SourceError(f"{self.path} has {size:,} bytes, more than a list of images may have ({_LARGEST:,})")
        other = kind_of(self.path)
        if other is not None:
            raise SourceError(f"{self.path} {other}; a list of images is a text file with one path per line")
        kind = SUFFIXES.get(self.path.suffix.lower())
        table = TableFile(self.path, kind) if kind is not None and kind in DELIMITERS else self._with_labels()
        return self._lines() if table is None else self._cells(table)

    def _lines(self) -> Iterator[tuple[str, str]]:
        encoding = encoding_of(self.path)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        with readable(self.path), self.path.open(encoding=encoding, errors=errors) as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), ""), 1):
                if len(line) > _LONGEST:
                    raise SourceError(
                        f"{self.path}, line {number}: has more than {_LONGEST:,} characters, which no path has; a list "
                        "of images has one path per line"
                    )
                if text := line.strip():
                    yield f"line {number}", text

    def _with_labels(self) -> TableFile | None:
        """The text as a table, where its first line has more than the path of an image, such as `cat/1.jpg 0`."""
        first = next(self._lines(), None)
        if first is None or is_image(first[1]):
            return None
        tables = (TableFile(self.path, "csv", delimiter) for delimiter in (None, " "))
        return next((table for table in tables if likely_data(table.columns())), None)

    def _cells(self, table: TableFile) -> Iterator[tuple[str, str]]:
        """The paths in the column of a table that names images."""
        columns = table.columns()
        found = likely_data(columns)  # where the first row is one of data
        if found:
            table = replace(table, header=False)
        column = (found or guessed_columns(columns, islice(table.rows(), _SAMPLE))).get("image")
        if column is None:
            raise SourceError(f"{self.path} has no column of paths of images (columns: {', '.join(columns) or 'none'})")
        for row in table.rows():
            if row.problem is not None:
                raise SourceError(f"{self.path}, {row.place}: {row.problem}; correct the line")
            if text := row.only(column):
                yield row.place, text


class ListedPaths:
    """What the paths in a list mean: the keys of images below a root.

    A path is relative to the root; it may also begin with the root's own name, or with a slash, as in some published
    lists. Only its text counts.

    Args:
        root: the folder of the images.
        path: the list.
        max_bytes: larger images are refused.
    """

    def __init__(self, root: str | Path, path: Path, max_bytes: int) -> None:
        self._files = FilesBelow(root, max_bytes, home=path.parent)
        name = os.path.basename(os.path.abspath(root))  # noqa: PTH100, PTH119 - links stay as they are
        self._own = f"{name}/" if name and not os.path.lexists(os.path.join(root, name)) else ""  # noqa: PTH118

    def location(self, text: str) -> str | None:
        """Return the path below the root, with or without the suffix; None where it leads out of the root."""
        slashed = text.replace("\\", "/")
        inside = self._files.location(slashed)
        if inside is None and slashed.startswith("/"):
            inside = self._files.location(slashed.lstrip("/"))
        return None if inside is None else inside.removeprefix(self._own)

    def problem(self, text: str) -> tuple[str, str]:
        """Return a key for a path that is no image's, empty where there is none, and what is wrong with it."""
        location = self.location(text)
        found = self._files.find(text if location is None else location)
        return self._files.key(text if location is None else location), found.problem or "is no image in a class folder"

    def shortened(self, key: str) -> str | None:
        """Return the longest end of a path, after one of its slashes, that is a file below the root; None without."""
        parts = key.split("/")
        ends = ("/".join(parts[number:]) for number in range(1, len(parts)))
        return next((end for end in ends if self._files.find(end).problem is None), None)


class SplitLists:
    """What lists say of the images below a root; made anew for each pass over the images.

    The paths are compared with the keys of the images that the root holds, so that no list leads to a file outside of
    it. They may lack the suffix.

    Args:
        root: the folder of the images.
        lists: the lists, at least one.
        max_bytes: larger images are refused.

    Raises:
        SourceError: a list cannot be read.
    """

    def __init__(self, root: str | Path, lists: Sequence[SplitList], max_bytes: int) -> None:
        self._root, self._lists = Path(root), lists
        self._paths = [ListedPaths(root, each.path, max_bytes) for each in lists]
        self._trained = any(each.split == "train" for each in lists)
        self._seen: set[str] = set()
        self._named: dict[str, int] = {}  # the number of the first list that has a path
        self._others: dict[str, int] = {}  # and of the first one of another split
        for number, each in enumerate(lists):
            for _, text in each.paths():
                key = self._key(number, text)
                if key is not None and lists[self._named.setdefault(key, number)].split != each.split:
                    self._others.setdefault(key, number)

    def split_of(self, key: str, folder: str | None) -> tuple[str | None, str | None]:
        """Return the split of an image, and why it has none (None where it has one).

        Args:
            key: of the image.
            folder: the split that its folder tells, which it has where only val and test are lists, and neither has it.
        """
        names = {key, os.path.splitext(key)[0]} & self._named.keys()  # noqa: PTH122 - a Path is slow here
        self._seen.update(names)
        numbers = {each[name] for name in names for each in (self._named, self._others) if name in each}
        by_split = {self._lists[number].split: str(self._lists[number].path) for number in sorted(numbers)}
        if len(by_split) > 1:
            return None, f"is in {' and in '.join(by_split.values())}"
        if by_split:
            return next(iter(by_split)), None
        if self._trained:
            return None, f"{UNLISTED} {listed(str(each.path) for each in self._lists)}"
        return folder or "train", None

    def without_image(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, split and problem of each listed path that was no image's, after `split_of` was asked for all.

        Raises:
            SourceError: a list has no path of an image.
        """
        for number, each in enumerate(self._lists):
            if not any(self._key(number, text) in self._seen for _, text in each.paths()):
                raise SourceError(self._unmatched(number))
        for number, each in enumerate(self._lists):
            told: set[str] = set()  # a path that is in a list twice is one row
            for place, text in each.paths():
                key = self._key(number, text)
                if key is None or not (key in self._seen or key in told):
                    told.update([] if key is None else [key])
                    named, problem = self._paths[number].problem(text)
                    yield named or f"{each.path.name}, {place}", each.split, f"{problem} ({each.path}, {place})"

    def _key(self, number: int, text: str) -> str | None:
        location = self._paths[number].location(text)
        return None if location is None else key_of(location)

    def _unmatched(self, number: int) -> str:
        """Why a list has no path of an image, and what to do."""
        each, count, first = self._lists[number], 0, ""
        for _, text in each.paths():
            count, first = count + 1, first or text
        if not count:
            return f"{each.split}={each.path} is an empty list: name another one"
        start = f"{each.split}={each.path}: none of its {counted(count, 'path')} is that of an image below {self._root}"
        shown = self._paths[number].problem(first)[0] or first
        end = self._paths[number].shortened(shown)
        if end is not None:
            return f"{start}, such as {shown:.200}; write that as {end}, and the others likewise, or name another list"
        return f"{start}, such as {shown:.200}; name the folder that these are relative to, or another list"
