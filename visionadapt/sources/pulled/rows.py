"""A row of a pulled manifest, and where its folder stores the row's bytes: under their hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionadapt.core.records import Record

MANIFEST = "manifest.parquet"
PACKED = "manifest.packed"
FILES = "files"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FrozenRow:
    """One row of a pulled manifest.

    Attributes:
        key, labels, group, split, problem, columns: as in `Record`.
        sha256: hex digest of the image file's bytes; empty where there are none.
        size: the number of bytes; None where there are none.
        width, height, mode: of the image as it is stored; None where its header cannot be read.
        fetched_at: when the bytes were fetched, in seconds since 1970 (UTC); None where there are none.
    """

    key: str
    sha256: str = ""
    size: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    problem: str | None = None
    fetched_at: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> Record:
        """Return the row as a `Record`, with the facts about its bytes in the further columns."""
        own = {"sha256": self.sha256 or None, "size": self.size, "width": self.width, "height": self.height}
        known = {name: str(value) for name, value in {**own, "mode": self.mode}.items() if value is not None}
        return Record(
            self.key,
            self.labels,
            self.group,
            self.split,
            location_of(self.sha256) if self.sha256 else None,
            self.problem,
            {**self.columns, **known},
        )


def location_of(digest: str) -> str:
    """Return the path below the folder of the bytes with a SHA-256 digest; an empty string for anything else."""
    return f"{FILES}/{digest[:2]}/{digest}" if _DIGEST.fullmatch(digest) else ""


class Fingerprint:
    """The hash of a manifest's rows, without the times when they were fetched."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._hash = hashlib.sha256(_line(list(classes)))

    def add(self, row: FrozenRow) -> None:
        """Add the next row."""
        facts = [row.key, row.sha256, row.size, row.width, row.height, row.mode, row.labels, row.group, row.split]
        self._hash.update(_line([*facts, row.problem, sorted(row.columns.items())]))

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


def tie_of(path: Path) -> str:
    """Return what identifies a Parquet file without reading all of it: its size and the hash of its footer.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size - 8 - length, 0))
        return f"{size}-{hashlib.sha256(file.read(length)).hexdigest()}"


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"
