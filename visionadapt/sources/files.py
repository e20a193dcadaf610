"""`FileSource`: unlabelled pictures named one by one, or as folders to look through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionadapt.errors import SourceError
from visionadapt.records import Record
from visionadapt.sources.walk import key_of, walk
from visionadapt.storage import read_file


@dataclass(frozen=True)
class FileSource:
    """Unlabelled pictures: each of `paths` is a file, or a folder of which every file is taken.

    Keys are the paths as they were given (a folder's files below the folder's path), so that a prediction can be
    traced to its file. A path that does not exist raises SourceError.
    """

    paths: str | Path | Sequence[str | Path]
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        paths = (self.paths,) if isinstance(self.paths, (str, Path)) else tuple(self.paths)
        object.__setattr__(self, "paths", tuple(str(path) for path in paths))
        missing = next((path for path in paths if not Path(path).exists()), None)
        if missing is not None:
            raise SourceError(f"no such file or folder: {missing}")

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes: the pictures are unlabelled."""
        return ()

    def __iter__(self) -> Iterator[Record]:
        paths = (self.paths,) if isinstance(self.paths, (str, Path)) else self.paths
        for path in map(Path, paths):
            if not path.is_dir():
                yield Record(key_of(str(path)), location=str(path))
                continue
            for found in walk(path):
                location = str(path / found.location)
                yield Record(key_of(location), location=location, problem=found.problem)

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, is no regular file or too large."""
        return read_file(Path(record.location or record.key), record.key, self.max_bytes)
