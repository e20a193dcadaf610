"""`ManifestSource`: rows and bytes that `visionadapt pull` has written; bytes are checked when they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import check_size
from visionadapt.sources.base import BaseSource
from visionadapt.sources.hub import data_set_name, is_hub_address, local_path, shown
from visionadapt.sources.pulled.packed import MappedColumns, open_columns
from visionadapt.sources.pulled.parquet import FrozenFacts, frozen_facts, frozen_rows
from visionadapt.sources.pulled.rows import MANIFEST, PACKED, Fingerprint, location_of, tie_of
from visionadapt.system.hub import is_blob
from visionadapt.system.storage import read_file


@dataclass(frozen=True, repr=False)
class ManifestSource(BaseSource):
    """The rows of a folder that `visionadapt pull` has written.

    `manifest()` maps `manifest.packed`, which workers share, and compares it with its checksums: about a second for ten
    million rows, and once as long as it does not change. Where it is missing or damaged, or does not belong to the
    `manifest.parquet` next to it, the rows are read from the latter.

    Args:
        path: the folder, also `hf://datasets/ORG/NAME`.
        max_bytes: larger files are refused.

    Raises:
        SourceError: the folder is missing, or holds no manifest.
    """

    path: str | Path
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        self._set(path=local_path(str(self.path)) if is_hub_address(str(self.path)) else str(self.path))
        check_size("max_bytes", self.max_bytes)
        if not self._parquet.is_file():
            raise SourceError(f"{self.path} holds no {MANIFEST}; make one with: visionadapt pull SOURCE --out FOLDER")

    def __str__(self) -> str:
        return shown(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return ManifestSource, (self.path, self.max_bytes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the source that was pulled."""
        return self._mapped.classes if self._mapped is not None else self._facts.classes

    @property
    def name(self) -> str:
        """The folder's name, or that of the data set on the hub."""
        return data_set_name(self.path) or Path(self.path).resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """The hash of all rows: any change of the manifest changes it."""
        if self._mapped is not None:
            return self._mapped.fingerprint
        rows = Fingerprint(self._facts.classes)
        for row in frozen_rows(self._parquet):
            rows.add(row)
        return rows.hexdigest()

    def resolved(self) -> ManifestSource:
        """Return the same source with an absolute path."""
        return ManifestSource(Path(self.path).absolute(), self.max_bytes)

    def manifest(self) -> Manifest:
        """Return the rows, packed. Its classes are `classes`, followed by those that only test rows have."""
        return self._pack() if self._mapped is None else Manifest(self, self._mapped, self._mapped.names)

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Record]:
        if self._mapped is not None:
            yield from self.manifest()
        else:
            yield from (row.record() for row in frozen_rows(self._parquet))

    def read(self, record: Record) -> bytes:
        """Return the bytes that were pulled; raise ImageError where they are gone or have changed."""
        location = record.location or ""
        digest = location.rpartition("/")[2]
        if not location or location != location_of(digest):
            raise ImageError(record.key, "the manifest has no bytes for it")
        path, root = os.path.realpath(Path(self.path) / location), os.path.realpath(self.path)
        if not Path(path).is_relative_to(root) and not is_blob(root, path):
            raise ImageError(record.key, "leads out of the folder")
        data = read_file(Path(path), record.key, self.max_bytes)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ImageError(record.key, f"{location} holds other bytes than were pulled; pull again with --refresh")
        return data

    @property
    def _parquet(self) -> Path:
        return Path(self.path) / MANIFEST

    @cached_property
    def _mapped(self) -> MappedColumns | None:
        columns = open_columns(Path(self.path) / PACKED)
        try:
            return columns if columns is not None and columns.tie == tie_of(self._parquet) else None
        except OSError as error:
            raise SourceError(f"{self._parquet} cannot be read ({error.strerror})") from error

    @cached_property
    def _facts(self) -> FrozenFacts:
        return frozen_facts(self._parquet)

    @cached_property
    def _packed(self) -> Manifest:
        return self.manifest()
