"""What a frozen manifest says of a row, and where in its folder the row's bytes lie: by their hash alone."""

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
    """One row of a frozen manifest.

    Attributes:
        key, labels, group, split, problem, columns: as in `Record`.
        sha256: hex digest of the picture file's bytes; empty where there are none.
        size: their number; None where there are none.
        width, height, mode: as the file stores the picture; None where its header cannot be read.
        fetched_at: when the bytes came, in seconds since 1970 (UTC); None where there are none.
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
        """The row as sources give it: what is known of the bytes stands among the further columns."""
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
    """Where the bytes with a SHA-256 lie below the folder; the text of any other name leads nowhere."""
    return f"{FILES}/{digest[:2]}/{digest}" if _DIGEST.fullmatch(digest) else ""


class Fingerprint:
    """The hash of a manifest's rows, all but the times of their fetching."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._hash = hashlib.sha256(_line(list(classes)))

    def add(self, row: FrozenRow) -> None:
        """Take in the next row."""
        facts = [row.key, row.sha256, row.size, row.width, row.height, row.mode, row.labels, row.group, row.split]
        self._hash.update(_line([*facts, row.problem, sorted(row.columns.items())]))

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


def tie_of(path: Path) -> str:
    """What tells one Parquet file from another at a glance: its size and the hash of its footer.

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
