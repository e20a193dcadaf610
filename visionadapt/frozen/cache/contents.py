"""Which bytes an object had, by its identity in its store: it need not be read where its features are cached."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from visionadapt.frozen.cache.index import ID_BYTES, Identities


class Contents:
    """A growing table from the identity of an object (64 hex digits) to the SHA-256 of its bytes.

    `sources.bin` holds the identities, `contents.bin` the SHA-256, 32 bytes each, written in this order. A damaged
    SHA-256 is that of no cached row, so that the object is read again.
    """

    def __init__(self, folder: Path) -> None:
        self._digests = folder / "contents.bin"
        self._rows = Identities(folder / "sources.bin")
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> None:
        """Load what this or another process has added since."""
        files = (self._digests, self._rows.file)
        self._rows.grow(min(file.stat().st_size // ID_BYTES if file.exists() else 0 for file in files))

    def get(self, identity: str) -> str | None:
        """Return the SHA-256 of an object's bytes, 64 hex digits; None where it is not known."""
        row = self._rows.get(bytes.fromhex(identity))
        if row is None:
            return None
        with self._digests.open("rb", buffering=0) as file:
            file.seek(row * ID_BYTES)
            return file.read(ID_BYTES).hex()

    def add(self, found: Mapping[str, str]) -> None:
        """Add what is new; only one process at a time may."""
        self.refresh()
        new = {bytes.fromhex(name): bytes.fromhex(digest) for name, digest in found.items()}
        new = {name: digest for name, digest in new.items() if name not in self._rows}
        if new:
            _append(self._digests, len(self._rows), b"".join(new.values()))
            _append(self._rows.file, len(self._rows), b"".join(new))
            self._rows.add(new)


def _append(path: Path, row: int, data: bytes) -> None:
    """Write rows from `row` on, over what a killed process left there, and sync to disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(row * ID_BYTES)
        file.seek(row * ID_BYTES)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
