"""Write files so that a crash, or a full disk, leaves either the old content or the new one, never a mixture."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from visionadapt.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to; when all is written it takes the place of `path`, in one step.

    It is written beside it, brought to the disk and renamed, and the folder is brought to the disk as well. Where the
    block raises, what stood at `path` before still does.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); what stood there before still does") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically; what no encoding knows (a file name's stray bytes) is written as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make sure that a rename in `folder` survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
