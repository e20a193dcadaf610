"""List the spaces of a cache folder, and remove the least recently used ones when it exceeds its limit."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from visionadapt.errors import UsageError
from visionadapt.frozen.cache.index import ID_BYTES
from visionadapt.frozen.cache.store import IN_USE, data_of
from visionadapt.system.locks import lock
from visionadapt.system.text import counted, written_size

_MOST_DIGITS = 20
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Space:
    """One folder of the cache: what its rows were computed with, bytes on disk, and when it was last opened.

    `data` names the images that it was used for, the latest first.
    """

    folder: Path
    description: dict[str, Any]
    rows: int
    bytes: int
    used: float
    data: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = self.description
        cut = "pixels" if about.get("cut") == 0 else f"cut {about.get('cut')}"
        used = datetime.fromtimestamp(self.used).strftime("%Y-%m-%d %H:%M")
        return (
            f"{about.get('backbone')}, {cut}, {about.get('precision')}, {about.get('engine', 'eager')}: "
            f"{counted(self.rows, 'row')}, {written_size(self.bytes)}, last used {used}"
            + (f", for {' and '.join(self.data)}" if self.data else "")
        )


def spaces(folder: Path) -> list[Space]:
    """Return the spaces of a cache folder, most recently used first; other files are ignored."""
    found = (_space(path.parent) for path in folder.glob("*/space.json"))
    return sorted((space for space in found if space is not None), key=lambda space: -space.used)


def _space(folder: Path) -> Space | None:
    try:
        description = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        ids = folder / "ids.bin"
        rows = ids.stat().st_size // ID_BYTES if ids.exists() else 0
        size = sum(_on_disk(file.stat()) for file in folder.iterdir())
        return Space(
            folder, dict(description), rows, size, (folder / "space.json").stat().st_mtime, tuple(data_of(folder))
        )
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _on_disk(status: os.stat_result) -> int:
    """Return the bytes that a file takes on disk; its length on Windows, which does not tell."""
    return 512 * status.st_blocks if hasattr(status, "st_blocks") else status.st_size


def remove(space: Space) -> bool:
    """Delete a space unless a process is using it or it belongs to another user; return whether it is gone."""
    try:
        with _alone(space.folder) as alone:
            if alone:
                gone = space.folder.with_name(f".removed-{space.folder.name}-{os.getpid()}")
                space.folder.rename(gone)
                shutil.rmtree(gone)
    except OSError:
        return not space.folder.exists()
    return alone


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether the space exists and no process uses it; inside the block, none can open it."""
    if not (folder / "space.json").exists():
        yield False
        return
    with (folder / IN_USE).open("a") as file:
        yield lock(file, wait=False)


def make_room(folder: Path, limit: int, needed: int = 0, spare: Path | None = None) -> list[Space]:
    """Delete the least recently used spaces until `needed` more bytes fit under `limit`; return the deleted ones.

    Spaces that a process is using stay, and so does the one in the folder `spare`, whose final size `needed` is.
    """
    known = spaces(folder)
    total = sum(space.bytes for space in known if space.folder != spare) + needed
    gone = []
    for space in reversed(known):
        if total <= limit:
            break
        if space.folder != spare and remove(space):
            total -= space.bytes
            gone.append(space)
    return gone


def named(known: Sequence[Space], name: str) -> Space:
    """Return the space whose name begins so; raise UsageError unless it is exactly one."""
    found = [space for space in known if name and space.folder.name.startswith(name)]
    if len(found) != 1:
        how = f"{len(found)} entries begin with it, write more of one" if found else "there is no such entry"
        raise UsageError(f"--remove {name}: {how}; visionadapt cache lists their names")
    return found[0]


def read_size(text: str) -> int:
    """Parse a size such as `20GB`, `500 MB` or `1.5T` into bytes (powers of 1,000).

    Raises:
        UsageError: the string is not a size.

    >>> read_size("1.5 GB")
    1500000000
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if match is None or len(match[1]) > _MOST_DIGITS:
        raise UsageError(f"{text!r} is no size; give one such as 500MB or 20GB")
    return int(float(match[1]) * _UNITS[match[2]])
