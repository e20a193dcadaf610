"""`FileSource`: unlabelled pictures named one by one, or as folders to look through."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, flag
from visionadapt.sources.walk import Keys, key_of, walk
from visionadapt.system.storage import file_version, read_file


@dataclass(frozen=True)
class FileSource:
    """Unlabelled pictures: each of `paths` is a file, or a folder of which every file is taken.

    Keys are the paths as they were given (a folder's files below the folder's path), so that a prediction can be
    traced to its file. What is given twice is taken once. A path that does not exist raises SourceError; where `strict`
    is not set, it is a row whose bytes cannot be had.
    """

    paths: str | Path | Sequence[str | Path]
    max_bytes: int = 1 << 28
    strict: bool = True

    def __post_init__(self) -> None:
        paths = (self.paths,) if isinstance(self.paths, (str, Path)) else tuple(self.paths)
        object.__setattr__(self, "paths", tuple(str(path) for path in paths))
        object.__setattr__(self, "strict", flag("strict", self.strict))
        check_size("max_bytes", self.max_bytes)
        for path in paths if self.strict else ():
            try:
                Path(path).stat()
            except FileNotFoundError as error:
                raise SourceError(f"no such file or folder: {path}") from error
            except (OSError, ValueError) as error:
                raise SourceError(f"{path} cannot be read ({getattr(error, 'strerror', error)})") from error

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths)) if isinstance(self.paths, tuple) else str(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes: the pictures are unlabelled."""
        return ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Those of the paths that are folders, of which every file is taken."""
        paths = (self.paths,) if isinstance(self.paths, (str, Path)) else self.paths
        return tuple(str(path) for path in paths if os.path.isdir(path))  # noqa: PTH112 - a Path refuses some texts

    def __iter__(self) -> Iterator[Record]:
        taken: set[str] = set()
        keys = Keys()
        for location, problem in self._found():
            if location in taken:
                continue
            taken.add(location)
            yield Record(keys.own(key_of(location))[0], location=location, problem=problem)

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, is no regular file or too large."""
        return read_file(Path(record.location or record.key), record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """What the file system says of the file, without reading it."""
        return file_version(Path(record.location or record.key))

    def _found(self) -> Iterator[tuple[str, str | None]]:
        """Location and problem of each file, in order."""
        paths = (self.paths,) if isinstance(self.paths, (str, Path)) else self.paths
        for path in map(Path, paths):
            if os.path.isdir(path):  # noqa: PTH112 - a Path refuses some texts
                yield from ((str(path / found.location), found.problem) for found in walk(path))
            else:
                yield str(path), None
