"""`FileTable`: what all tables have in common whose rows name image files, or hold the images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from visionadapt.core.records import Record
from visionadapt.errors import ImageError
from visionadapt.sources.keys import plain_key
from visionadapt.sources.objects.named import NamedObjects
from visionadapt.sources.objects.urls import is_object_url, object_url
from visionadapt.sources.tables.arrow import HeldImages
from visionadapt.sources.tables.cells import NO_MARK
from visionadapt.sources.tables.image_folders import MOST_ROWS, agreed_miss, sampled
from visionadapt.sources.tables.paths import LEAVES, URL, FilesBelow, FilesOfTables
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found
from visionadapt.system.storage import MISSING


class FileTable(TabularSource):
    """Base of sources whose rows name files, or hold images."""

    _takes_several_roots: ClassVar[bool] = False

    @property
    @abstractmethod
    def _files(self) -> FilesBelow | NamedObjects:
        """The files or objects that a row can name."""

    @abstractmethod
    def _table_rows(self) -> Iterator[TableRow]:
        """Yield the rows of the table."""

    @abstractmethod
    def _held(self) -> HeldImages | None:
        """Return what reads the images that the column `image` holds; None where it names files."""

    def read(self, record: Record) -> bytes:
        """Return the image's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        location = record.location or record.key
        if self._held_images is None:
            return self._files.read(location, record.key)
        if not location.isdecimal():
            raise ImageError(record.key, "is no row of this table")
        return self._held_images.read(int(location), record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it; None for images in the table itself."""
        return self._files.version(record.location or record.key) if self._held_images is None else None

    @property
    def _key_column(self) -> str | None:
        """The column that names the row; None where its file does."""
        return None

    @property
    def holds_images(self) -> bool:
        """Whether the table holds the images themselves, rather than their paths."""
        return self._held_images is not None

    def advice(self, record: Record) -> str | None:
        """Return what to change so that a row can be used, such as the option that finds its file; None if unknown."""
        problem = record.problem or ""
        if NO_MARK in problem:
            return "a list of columns is one class each; for one with names give label=COLUMN"
        if self._held_images is not None or not problem.startswith((MISSING, LEAVES, URL)):
            return None
        named, folder, files = record.key, "", self._files
        paths: dict[str, list[str]] = {}
        for key, row, _ in islice(self._rows(look=False), MOST_ROWS):
            path = row.only(self.image)
            if path:
                paths.setdefault(row.folder, []).append(path)
                named, folder = (path, row.folder) if key == record.key else (named, folder)
        if is_object_url(named):
            return f"give root={object_url(named).bucket} to read this bucket, or download the images"
        if isinstance(files, FilesOfTables):
            own = FilesBelow(files.root / folder, files.max_bytes, files.suffix)
            miss = agreed_miss(own, named, sampled(paths.get(folder, [])), several=False)
            if miss is None or not _finds_all(files, miss.options, paths):  # no option is for one of the tables
                return None if miss is None else miss.found
            return str(miss)
        if not isinstance(files, FilesBelow):
            return None
        every = [path for each in paths.values() for path in each]
        miss = agreed_miss(files, named, sampled(every), self._takes_several_roots)
        return None if miss is None else str(miss)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__getstate__().items()
            if name not in {"_held_images", "_files_of_tables"}
        }

    @cached_property
    def _held_images(self) -> HeldImages | None:
        return self._held()

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        """Every row under the key of its file; where it names none, or holds its image, under its own place."""
        files, title, held = self._files, Path(self._title).name, self._held_images
        own_files: dict[str, FilesBelow | NamedObjects] = {"": files}
        own_files |= files.by_folder() if isinstance(files, FilesOfTables) else {}
        for number, row in enumerate(self._table_rows(), 1):
            own = plain_key(row.only(self._key_column) or "")
            if held is not None:
                name = plain_key(row.only(held.path_column) or "")
                yield own or (f"{row.place}/{name}" if name else row.place), row, Found(str(number))
            else:
                path, its = row.only(self.image) or "", own_files.get(row.folder)
                if its is None:
                    its = own_files[row.folder] = files.beside(row.folder) if isinstance(files, FilesBelow) else files
                several = not path and len(row.cells.get(self.image, ())) > 1
                found = Found("", "names several images") if several else its.find(path) if look else Found(path)
                yield own or its.key(path) or f"{title}, {row.place}", row, found


def _finds_all(files: FilesOfTables, options: Mapping[str, str], paths: Mapping[str, Sequence[str]]) -> bool:
    """Whether options for all tables find most of the paths of each; these are by the folder of their table."""
    if "root" not in options:
        return False
    below = FilesBelow(options["root"], files.max_bytes, options.get("suffix", files.suffix), files.root)
    for folder, every in paths.items():
        own, some = below.beside(folder), sampled(every)
        if 2 * sum(own.find(path).problem is None for path in some) <= len(some):
            return False
    return True
