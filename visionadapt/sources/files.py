"""`FileSource`: unlabelled images given as single files, or as folders to search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, flag, mode_of, several
from visionadapt.sources.base import BaseSource
from visionadapt.sources.hub import is_hub_address
from visionadapt.sources.keys import UniqueKeys, key_of
from visionadapt.sources.walk import Found, walk
from visionadapt.system.storage import file_version, read_file


@dataclass(frozen=True, repr=False)
class FileSource(BaseSource):
    """Unlabelled images: each of `paths` is a file, or a folder of which every file is taken.

    Keys are the paths as they were given (a folder's files below the folder's path), so that a prediction can be
    traced to its file. A path that is given twice is taken once.

    Args:
        paths: files and folders.
        max_bytes: larger files are refused.
        strict: False takes a missing path as a row whose bytes are not available.
        follow_links: follow symbolic links that leave a folder, too.

    Raises:
        SourceError: `strict` is set, and a path is missing, cannot be accessed, or is on the Hugging Face hub.
    """

    paths: str | Path | Sequence[str | Path]
    max_bytes: int = 1 << 28
    strict: bool = True
    follow_links: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._set(paths=several(self.paths), strict=flag("strict", self.strict))
        self._set(follow_links=flag("follow_links", self.follow_links))
        check_size("max_bytes", self.max_bytes)
        for path in several(self.paths) if self.strict else ():
            if is_hub_address(path):
                raise SourceError(f"{path} is on the hub: give it alone, as --data 'folder({path}, labelled=false)'")
            mode_of("file or folder", path)

    def __str__(self) -> str:
        return ", ".join(several(self.paths))

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes: the images are unlabelled."""
        return ()

    @property
    def folders(self) -> tuple[str, ...]:
        """The paths that are folders, of which every file is taken."""
        return tuple(path for path in several(self.paths) if os.path.isdir(path))  # noqa: PTH112 - a Path refuses some texts

    def __iter__(self) -> Iterator[Record]:
        taken: set[str] = set()
        keys = UniqueKeys()
        for found in self._found():
            if found.location not in taken:
                taken.add(found.location)
                key, _ = keys.own(key_of(found.location))
                yield Record(key, location=found.location_for(key), problem=found.problem)

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, is no regular file or too large."""
        return read_file(Path(record.location or record.key), record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it."""
        return file_version(Path(record.location or record.key))

    def _found(self) -> Iterator[Found]:
        folders = frozenset(self.folders)
        for path in several(self.paths):
            if path in folders:
                for found in walk(Path(path), follow_links=self.follow_links):
                    yield Found(str(Path(path) / found.location), found.problem)
            else:
                yield Found(str(Path(path)))
