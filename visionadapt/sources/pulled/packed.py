"""The columns of a pulled manifest in one flat file, mapped into memory: opened at once, shared by workers."""

from __future__ import annotations

import json
import mmap
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from visionadapt.core.columns import Categories, Columns, SparseColumn, in_memory
from visionadapt.core.records import ColumnsBuilder, Record
from visionadapt.errors import SourceError
from visionadapt.sources.pulled.checked import is_checked, remember
from visionadapt.sources.pulled.rows import FrozenRow, location_of
from visionadapt.sources.pulled.sections import Sections, different_texts
from visionadapt.system.digest import BLANK, is_intact, sealed
from visionadapt.system.storage import file_version, replacing

_MAGIC = b"VAPACK1\n"
_FLUSH = 1 << 16
_NO_NUMBER = (1 << 64) - 1
_NO_DIGEST = bytes(32)
_NUMBERS = ("size", "width", "height")


@dataclass(frozen=True)
class MappedColumns(Columns):
    """Columns mapped from a file; a copy in another process maps the same file.

    Attributes:
        path: the file.
        names: all labels, in the order of the class indices.
        classes: the first of them, which are learned; the others occur only in test rows.
        fingerprint: the hash of the manifest's rows.
        tie: identifies the Parquet file that was written at the same time.
    """

    path: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprint: str
    tie: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.fingerprint)


def open_columns(path: Path, reopened: bool = False) -> MappedColumns | None:
    """Map the columns of a file; None where it is missing, damaged, of another version or inconsistent.

    A file is compared with its checksums once: not where it is `reopened` in another process, nor where this user has
    opened it before, and it has not changed since.
    """
    try:
        version = file_version(path)
        if version is None or not path.is_file():
            return None
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        start = len(_MAGIC) + 8
        size = int.from_bytes(data[len(_MAGIC) : start], "little")
        text = bytes(data[start : start + size])
        header = json.loads(text) if data[: len(_MAGIC)] == _MAGIC and is_intact(text) else {}
        whole = header["order"] == sys.byteorder and header["size"] == len(data)
        if not whole or not (reopened or is_checked(path) or _are_intact(header, data)):
            return None
        columns = _columns(path, header, data)
        if not reopened:
            remember(path, version)
        return columns
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _are_intact(header: Mapping[str, Any], data: memoryview) -> bool:
    """Whether the sections have their checksums."""
    return all(
        zlib.crc32(data[offset : offset + size]) == checksum
        for name, checksum in header["checksums"].items()
        for _, offset, size in [header["sections"][name]]
    )


def _reopened(path: str, fingerprint: str) -> MappedColumns:
    columns = open_columns(Path(path), reopened=True)
    if columns is None or columns.fingerprint != fingerprint:
        raise SourceError(f"{path} has changed since it was opened; start again")
    return columns


def _columns(path: Path, header: Mapping[str, Any], data: memoryview) -> MappedColumns:
    count, names = header["rows"], different_texts(header["names"])
    sections = Sections(data, header["sections"], count)
    digests = sections.numbers("sha256", "B", 32 * count)
    further: dict[str, SparseColumn] = {
        name: sections.sparse(f"further{place}") for place, name in enumerate(different_texts(header["further"]))
    }
    numbers = {name: _Numbers(sections.numbers(name, "Q", count)) for name in _NUMBERS}
    own: dict[str, SparseColumn] = {"sha256": _Digests(digests), **numbers, "mode": sections.categories("mode")}
    return MappedColumns(
        count=count,
        keys=sections.strings("keys", count),
        labels=sections.labels(len(names)),
        groups=sections.categories("groups"),
        splits=sections.categories("splits"),
        locations=_Locations(digests),
        problems=sections.sparse("problems"),
        further={**further, **own},
        path=str(path),
        names=tuple(names),
        classes=tuple(names[: range(len(names) + 1)[header["classes"]]]),
        fingerprint=header["fingerprint"],
        tie=header["tie"],
    )


class _Numbers:
    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    def get(self, row: int) -> str | None:
        number = self._numbers[row]
        return None if number == _NO_NUMBER else str(number)


class _Digests:
    def __init__(self, digests: memoryview) -> None:
        self._digests = digests

    def get(self, row: int) -> str | None:
        digest = bytes(self._digests[32 * row : 32 * row + 32])
        return None if digest == _NO_DIGEST else digest.hex()


class _Locations(_Digests):
    def get(self, row: int) -> str | None:
        digest = super().get(row)
        return None if digest is None else location_of(digest)


class PackedWriter:
    """Write rows to such a file, one by one and in bounded memory.

    Args:
        folder: an empty folder for temporary files.
        classes: the names of the classes to learn; labels with other names follow them.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder, self._classes = folder, len(classes)
        self._sections: dict[str, _Section] = {}
        self._index_of = _Indices({name: index for index, name in enumerate(classes)})
        self._columns = ColumnsBuilder(self._index_of, self._section)
        self._modes, self._digests = Categories(self._section, "mode"), self._section("sha256", "B")
        self._numbers = {name: self._section(name, "Q") for name in _NUMBERS}

    def append(self, row: FrozenRow) -> None:
        """Add one row."""
        self._columns.append(Record(row.key, row.labels, row.group, row.split, None, row.problem, row.columns))
        self._modes.append(row.mode)
        self._digests.extend(bytes.fromhex(row.sha256) if row.sha256 else _NO_DIGEST)
        for name, section in self._numbers.items():
            number = getattr(row, name)
            section.append(_NO_NUMBER if number is None else number)

    def finish(self, path: Path, fingerprint: str, tie: str) -> None:
        """Write the file atomically; raise RunError where it cannot be written."""
        facts = {"rows": self._columns.count, "classes": self._classes, "fingerprint": fingerprint, "tie": tie}
        further = list(self._columns.further)
        places = {name: (section.kind, section.finish()) for name, section in self._sections.items()}
        sums = {name: section.checksum for name, section in self._sections.items()}
        names = {"names": list(self._index_of), "further": further}
        header = {**facts, **names, "order": sys.byteorder, "checksums": sums}
        with replacing(path) as file:
            start = _write_header(file, header, places)
            for name in places:
                file.write(bytes(start - file.tell()) if file.tell() < start else bytes(-file.tell() % 8))
                _copy(self._folder / name, file)
        remember(path, file_version(path))

    def _section(self, name: str, kind: str) -> _Section:
        self._sections[name] = _Section(self._folder / name, kind)
        return self._sections[name]


class _Indices(dict[str, int]):
    """The class index of each label; an unknown label gets the next one."""

    def __missing__(self, label: str) -> int:
        self[label] = len(self)
        return self[label]


class _Section:
    """Numbers of one kind, written to a file of their own in blocks."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind, self._path = kind, path
        self._buffer = in_memory("", kind)
        self._written = self.checksum = 0

    def __len__(self) -> int:
        return self._written + len(self._buffer)

    def append(self, number: int) -> None:
        self._buffer.append(number)
        self._flush(_FLUSH)

    def extend(self, numbers: Sequence[int] | bytes) -> None:
        self._buffer.extend(numbers)
        self._flush(_FLUSH)

    def _flush(self, least: int) -> None:
        if len(self._buffer) >= least:
            with self._path.open("ab") as file:
                file.write(self._buffer)
            self._written += len(self._buffer)
            self.checksum = zlib.crc32(self._buffer, self.checksum)
            del self._buffer[:]

    def finish(self) -> int:
        """Write the rest; return the file's size in bytes."""
        self._flush(0)
        return self._path.stat().st_size


def _write_header(file: BinaryIO, header: Mapping[str, Any], places: Mapping[str, tuple[str, int]]) -> int:
    """Write the header that precedes the sections; return where the first section begins."""
    room = len(json.dumps({"digest": BLANK, **header})) + 200 + 120 * len(places)
    start = offset = -(-(len(_MAGIC) + 8 + room) // 4096) * 4096
    sections: dict[str, tuple[str, int, int]] = {}
    for name, (kind, size) in places.items():
        offset += -offset % 8
        sections[name] = (kind, offset, size)
        offset += size
    text = sealed(json.dumps({"digest": BLANK, **header, "sections": sections, "size": offset}).encode())
    file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
    return start


def _copy(path: Path, target: BinaryIO) -> None:
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            target.write(block)
    os.unlink(path)  # noqa: PTH108
