"""Remember which large files have been compared with their checksums, so that they are read through only once."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from visionadapt.errors import RunError
from visionadapt.system.cache_folder import default_folder
from visionadapt.system.storage import file_version, write_text


def is_checked(path: Path) -> bool:
    """Whether `remember` has been told of this file, and it has not been written, replaced or copied since."""
    version = _version(path)
    try:
        return version is not None and _note(path).read_text(encoding="utf-8") == version
    except (OSError, ValueError):
        return False


def remember(path: Path, before: str | None) -> None:
    """Note that a file has its checksums, unless it has changed since its `file_version` was `before`.

    Where nothing can be noted, it is compared again the next time.
    """
    version = _version(path)
    if before is None or version != f"{before} {path.resolve()}":
        return
    with suppress(OSError, RunError):
        _note(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(_note(path), version)


def _version(path: Path) -> str | None:
    """The file's size, times and number: whoever writes to a file cannot set the time of its last change."""
    version = file_version(path)
    return None if version is None else f"{version} {path.resolve()}"


def _note(path: Path) -> Path:
    own = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    return default_folder() / "checked" / f"{own}.txt"
