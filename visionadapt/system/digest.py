"""A digest that a file of any format carries inside: the SHA-256 of its bytes, with zeros in the digest's own place."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import BinaryIO

_MARK = b"visionadapt-sha256:"
_ZEROS = b"0" * 64
BLANK = (_MARK + _ZEROS).decode()
"""The text to write where the digest shall stand, such as a value in a JSON object."""


def sealed(data: bytes) -> bytes:
    """Return the bytes of a file with its digest in place of the first `BLANK`."""
    place = data.index(BLANK.encode()) + len(_MARK)
    return b"".join((data[:place], hashlib.sha256(data).hexdigest().encode(), data[place + len(_ZEROS) :]))


def seal_end(file: BinaryIO) -> None:
    """Put the digest of a file that is open for reading and writing in place of the last `BLANK`."""
    file.flush()
    with mmap.mmap(file.fileno(), 0) as data:
        place = data.rfind(BLANK.encode()) + len(_MARK)
        data[place : place + len(_ZEROS)] = hashlib.sha256(data).hexdigest().encode()
        data.flush()


def check_digest(path: Path, *, at_end: bool = False) -> None:
    """Compare a file with its digest, the first in it, or the last one `at_end`.

    A file without a digest passes: an earlier version wrote it, or somebody has edited it and removed the digest.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, or its bytes are not those that were written.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not is_intact(data, at_end=at_end):
            raise ValueError("its bytes are not those that were written: it is damaged, or was edited")


def is_intact(data: bytes | mmap.mmap, *, at_end: bool = False) -> bool:
    """Return whether bytes have their digest, or none; see `check_digest`."""
    place = data.rfind(_MARK) if at_end else data.find(_MARK)
    if place < 0:
        return True
    place += len(_MARK)
    digest = hashlib.sha256()
    with memoryview(data) as view, view[:place] as before, view[place + len(_ZEROS) :] as after:
        for part in (before, _ZEROS, after):
            digest.update(part)
    return data[place : place + len(_ZEROS)] == digest.hexdigest().encode()
