"""The bytes of an archive: of a local file, or of an object that is read in large blocks, ahead where in sequence."""

from __future__ import annotations

import io
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from visionadapt.core.naming import stable_hash
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.objects.urls import ObjectUrl
from visionadapt.system.storage import file_version

BLOCK = 1 << 23
_BLOCKS = 4
"""Blocks of objects in memory, of all archives together."""


class ArchiveFile(Protocol):
    """The bytes of an archive; cheap to pickle."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of bytes."""

    @property
    @abstractmethod
    def version(self) -> str | None:
        """What changes when the archive does; None where that is not known."""

    @property
    @abstractmethod
    def identity(self) -> str | None:
        """What no other bytes have had; None where nothing is known to be."""

    @abstractmethod
    def read(self, start: int, count: int, name: str) -> bytes:
        """Return up to `count` bytes from `start` on; raise ImageError about `name`, or SourceError."""


class LocalArchive(ArchiveFile):
    """An archive on a disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Number of bytes."""
        return os.stat(self.path).st_size  # noqa: PTH116 - the path stays as it was given

    @property
    def version(self) -> str | None:
        """The file's size and times."""
        return file_version(Path(self.path))

    @property
    def identity(self) -> str | None:
        """None: times can be set."""
        return None

    def read(self, start: int, count: int, name: str) -> bytes:
        """Return up to `count` bytes from `start` on."""
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123
                file.seek(start)
                return file.read(count)
        except OSError as error:
            raise ImageError(name, f"its archive cannot be read ({error.strerror})") from error


class RemoteArchive(ArchiveFile):
    """An archive in a bucket, of which each range is read only with the ETag that the archive had at first."""

    def __init__(self, bucket: Bucket, url: ObjectUrl, size: int, etag: str) -> None:
        self.bucket, self.url, self._size, self.etag = bucket, url, size, etag

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    @property
    def version(self) -> str | None:
        """A hash of the ETag and the size."""
        return f"{stable_hash(self.etag, self.size):016x}"

    @property
    def identity(self) -> str | None:
        """The URL, the ETag and the size."""
        return f"{self.url}\x1f{self.etag}\x1f{self.size}" if self.etag else None

    def read(self, start: int, count: int, name: str) -> bytes:
        """Return up to `count` bytes from `start` on, by blocks where those before were read last."""
        stop = min(start + count, self.size)
        if stop <= start:
            return b""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        if not _blocks().in_sequence(str(self.url), first, last):
            return self.bucket.read_range(self.url.path, name, start, stop, self.etag)
        data = b"".join(_blocks().get(self, number, name) for number in range(first, last + 1))
        return data[start - first * BLOCK : stop - first * BLOCK]

    def block(self, number: int, name: str) -> bytes:
        """Return one block."""
        start = number * BLOCK
        return self.bucket.read_range(self.url.path, name, start, min(start + BLOCK, self.size), self.etag)


class _Blocks:
    """The blocks that threads of this process have read last; each is requested once, and the next one ahead."""

    def __init__(self) -> None:
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(2)
        self._blocks: OrderedDict[tuple[str, str, int], Future[bytes]] = OrderedDict()
        self._last: dict[str, int] = {}

    def in_sequence(self, url: str, first: int, last: int) -> bool:
        """Whether a part follows what was read of an archive before, or is near it; it counts as read from now on."""
        with self._lock:
            before = self._last.get(url, 0)
            self._last[url] = last
        return before - 1 <= first <= before + 1

    def get(self, archive: RemoteArchive, number: int, name: str) -> bytes:
        """Return a block, and request the next one."""
        found = self._asked(archive, number, name)
        if (number + 1) * BLOCK < archive.size:
            self._asked(archive, number + 1, name)
        return found.result()

    def _asked(self, archive: RemoteArchive, number: int, name: str) -> Future[bytes]:
        key = (str(archive.url), archive.etag, number)
        with self._lock:
            found = self._blocks.get(key)
            if found is None or (found.done() and found.exception() is not None):
                found = self._blocks[key] = self._pool.submit(archive.block, number, name)
            self._blocks.move_to_end(key)
            while len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return found


@lru_cache(maxsize=1)
def _of_process(process: int) -> _Blocks:
    return _Blocks()


def _blocks() -> _Blocks:
    return _of_process(os.getpid())


class Reading(io.RawIOBase):
    """An archive as a file to read from, for libraries that want one; no single read may be longer than `most`."""

    def __init__(self, archive: ArchiveFile, title: str, most: int = 1 << 26) -> None:
        super().__init__()
        self._archive, self._title, self._most, self._at = archive, title, most, 0
        self._size = archive.size

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        self._at = max((0, self._at, self._size)[whence] + offset, 0)
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        """Return up to `count` bytes; raise ValueError where that is more than any header has."""
        wanted = self._size - self._at if count is None or count < 0 else count
        wanted = max(min(wanted, self._size - self._at), 0)
        if wanted > self._most:
            raise ValueError(f"a header of {wanted:,} bytes")
        try:
            data = self._archive.read(self._at, wanted, self._title)
        except ImageError as error:
            raise SourceError(str(error)) from error
        self._at += len(data)
        return data
