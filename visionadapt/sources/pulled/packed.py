"""The columns of a frozen manifest in one flat file, which is mapped into memory: opened at once, shared by workers."""

from __future__ import annotations

import json
import mmap
import os
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.columns import Column, Columns, SparseColumn
from visionadapt.errors import SourceError
from visionadapt.sources.pulled.rows import FrozenRow, location_of
from visionadapt.sources.pulled.sections import Sections, check, different_texts
from visionadapt.system.storage import replacing

_MAGIC = b"VAPACK1\n"
_FLUSH = 1 << 16
_NO_NUMBER = (1 << 64) - 1
_NO_DIGEST = bytes(32)


@dataclass(frozen=True)
class MappedColumns(Columns):
    """Columns that lie in a file; a copy in another process maps the same file.

    Attributes:
        path: the file.
        names: every label, in the order of the class indices.
        classes: the first of them: those to learn. The others stand in test rows alone.
        fingerprint: the hash of the manifest's rows.
        tie: what the Parquet file must be like that it was written with.
    """

    path: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprint: str
    tie: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.fingerprint)


def open_columns(path: Path) -> MappedColumns | None:
    """Map the columns of a file; None where there is none, or it is not whole, or its parts do not fit together."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        start = len(_MAGIC) + 8
        size = int.from_bytes(data[len(_MAGIC) : start], "little")
        header = json.loads(bytes(data[start : start + size])) if data[: len(_MAGIC)] == _MAGIC else {}
        whole = header["order"] == sys.byteorder and header["size"] == len(data)
        return _columns(path, header, data) if whole else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _reopened(path: str, fingerprint: str) -> MappedColumns:
    columns = open_columns(Path(path))
    if columns is None or columns.fingerprint != fingerprint:
        raise SourceError(f"{path} has changed since it was opened; start again")
    return columns


def _columns(path: Path, header: Mapping[str, Any], data: memoryview) -> MappedColumns:
    count, names = header["rows"], header["names"]
    parts = _Parts(data, header["sections"], count)
    digests = parts.numbers("sha256", "B", 32 * count)
    further: dict[str, SparseColumn] = {
        name: parts.sparse(f"further{place}") for place, name in enumerate(different_texts(header["further"]))
    }
    numbers = {name: _Numbers(parts.numbers(name, "Q", count)) for name in ("size", "width", "height")}
    own: dict[str, SparseColumn] = {"sha256": _Digests(digests), **numbers, "mode": parts.categories("mode")}
    return MappedColumns(
        count=count,
        keys=parts.texts("keys", count),
        labels=parts.labels(len(different_texts(names))),
        groups=parts.categories("groups"),
        splits=parts.categories("splits"),
        locations=_Locations(digests),
        problems=parts.sparse("problems"),
        further={**further, **own},
        path=str(path),
        names=tuple(names),
        classes=tuple(names[: range(len(names) + 1)[header["classes"]]]),
        fingerprint=header["fingerprint"],
        tie=header["tie"],
    )


class _Parts(Sections):
    """The columns of a file by the names of their sections."""

    def texts(self, name: str, rows: int | None = None) -> _Texts:
        data = self.numbers(f"{name}.bytes", "B")
        return _Texts(self.ends(f"{name}.ends", rows, len(data)), data)

    def sparse(self, name: str) -> _Sparse:
        rows = self.numbers(f"{name}.rows", "I")
        places = np.asarray(rows)
        check(not len(places) or (places[-1] < self.count and (places[1:] > places[:-1]).all()))
        return _Sparse(rows, self.texts(name, len(rows)), self.count)

    def categories(self, name: str) -> _Categories:
        codes, names = self.numbers(f"{name}.codes", "I", self.count), self.texts(f"{name}.names")
        check(np.asarray(codes).max(initial=0) <= len(names))
        return _Categories(codes, names)

    def labels(self, classes: int) -> _Labels:
        indices = self.numbers("labels", "i")
        places = np.asarray(indices)
        check(places.min(initial=0) >= 0 and places.max(initial=-1) < classes)
        return _Labels(self.ends("labels.ends", self.count, len(indices)), indices)


class _Texts:
    """Texts in UTF-8; bytes that are none come back as escapes."""

    def __init__(self, ends: memoryview, data: memoryview) -> None:
        self._ends, self._bytes = ends, data

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        return str(self._bytes[self._ends[row] : self._ends[row + 1]], "utf-8", "backslashreplace")

    def each(self, rows: Sequence[int]) -> Iterator[str]:
        return map(self.__getitem__, rows)


class _Sparse:
    """Texts of the rows that have one; of all rows where there are as many."""

    def __init__(self, rows: memoryview, texts: Column[str], count: int) -> None:
        self._rows, self._texts, self._every = rows, texts, len(rows) == count

    def get(self, row: int) -> str | None:
        place = row if self._every else bisect_left(self._rows, row)
        return self._texts[place] if place < len(self._rows) and self._rows[place] == row else None

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        return map(self.get, rows) if len(self._rows) else repeat(None, len(rows))


class _Categories:
    """Code 0 is None, code k the name k − 1."""

    def __init__(self, codes: memoryview, names: Column[str]) -> None:
        self._codes, self._names = codes, names

    def __getitem__(self, row: int) -> str | None:
        code = self._codes[row]
        return self._names[code - 1] if code else None

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        codes, names = np.asarray(self._codes), {0: None}
        for block in _blocks(rows):
            found = codes[block].tolist()
            names |= {code: self._names[code - 1] for code in set(found) - names.keys()}
            yield from map(names.__getitem__, found)

    get = __getitem__


class _Labels:
    def __init__(self, ends: memoryview, indices: memoryview) -> None:
        self._ends, self._indices = ends, indices

    def __getitem__(self, row: int) -> Sequence[int]:
        return self._indices[self._ends[row] : self._ends[row + 1]].tolist()

    def each(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        ends, indices = np.asarray(self._ends), np.asarray(self._indices)
        for block in _blocks(rows):
            starts, stops = ends[block], ends[block + 1]
            if (stops - starts == 1).all():
                yield from zip(indices[starts].tolist(), strict=True)
            else:
                yield from (indices[i:j].tolist() for i, j in zip(starts.tolist(), stops.tolist(), strict=True))


class _Numbers:
    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    def get(self, row: int) -> str | None:
        number = self._numbers[row]
        return None if number == _NO_NUMBER else str(number)

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        return map(self.get, rows)


class _Digests:
    def __init__(self, digests: memoryview) -> None:
        self._digests = digests

    def get(self, row: int) -> str | None:
        digest = bytes(self._digests[32 * row : 32 * row + 32])
        return None if digest == _NO_DIGEST else digest.hex()

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        return map(self.get, rows)


class _Locations(_Digests):
    def get(self, row: int) -> str | None:
        digest = super().get(row)
        return None if digest is None else location_of(digest)


def _blocks(rows: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """The row numbers, some at a time."""
    for start in range(0, len(rows), _FLUSH):
        yield np.asarray(rows[start : start + _FLUSH], dtype=np.int64)


class PackedWriter:
    """Takes rows one by one and writes them as such a file, in bounded memory.

    Args:
        folder: an empty folder to work in.
        classes: the names of the classes to learn; labels of other names come behind them.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder, self._classes = folder, len(classes)
        self._index_of = {name: index for index, name in enumerate(classes)}
        self._sections: dict[str, _Section] = {}
        self._codes: dict[str, dict[str, int]] = {"groups": {}, "splits": {}, "mode": {}}
        self._further: dict[str, str] = {}
        self._rows = 0
        for name in ("keys", "problems", *(f"{name}.names" for name in self._codes)):
            self._section(f"{name}.ends", "Q").append(0)
            self._section(f"{name}.bytes", "B")
        self._section("labels.ends", "Q").append(0)
        self._section("problems.rows", "I")
        for name, kind in {"labels": "i", "sha256": "B", "size": "Q", "width": "Q", "height": "Q"}.items():
            self._section(name, kind)
        for name in self._codes:
            self._section(f"{name}.codes", "I")

    def append(self, row: FrozenRow) -> None:
        """Add one row."""
        self._text("keys", row.key)
        labels = self._section("labels", "i")
        labels.extend([self._index_of.setdefault(label, len(self._index_of)) for label in row.labels])
        self._section("labels.ends", "Q").append(labels.count)
        self._section("sha256", "B").extend(bytes.fromhex(row.sha256) if row.sha256 else _NO_DIGEST)
        for name in ("size", "width", "height"):
            number = getattr(row, name)
            self._section(name, "Q").append(_NO_NUMBER if number is None else number)
        for name, text in (("groups", row.group), ("splits", row.split), ("mode", row.mode)):
            self._category(name, text)
        if row.problem is not None:
            self._sparse("problems", row.problem)
        for name, text in row.columns.items():
            self._sparse(self._further_name(name), text)
        self._rows += 1

    def finish(self, path: Path, fingerprint: str, tie: str) -> None:
        """Write the file, atomically; raise RunError where that cannot be."""
        facts = {"rows": self._rows, "classes": self._classes, "fingerprint": fingerprint, "tie": tie}
        header = {**facts, "names": list(self._index_of), "order": sys.byteorder, "further": list(self._further)}
        places = {name: (section.kind, section.finish()) for name, section in self._sections.items()}
        with replacing(path) as file:
            start = _write_header(file, header, places)
            for name in places:
                file.write(bytes(start - file.tell()) if file.tell() < start else bytes(-file.tell() % 8))
                _copy(self._folder / name, file)

    def _text(self, name: str, text: str) -> None:
        data = self._section(f"{name}.bytes", "B")
        data.extend(text.encode())
        self._section(f"{name}.ends", "Q").append(data.count)

    def _sparse(self, name: str, text: str) -> None:
        self._section(f"{name}.rows", "I").append(self._rows)
        self._text(name, text)

    def _category(self, name: str, text: str | None) -> None:
        codes = self._codes[name]
        if text is not None and text not in codes:
            codes[text] = len(codes) + 1
            self._text(f"{name}.names", text)
        self._section(f"{name}.codes", "I").append(0 if text is None else codes[text])

    def _further_name(self, name: str) -> str:
        if name not in self._further:
            self._further[name] = f"further{len(self._further)}"
            self._section(f"{self._further[name]}.ends", "Q").append(0)
        return self._further[name]

    def _section(self, name: str, kind: str) -> _Section:
        if name not in self._sections:
            self._sections[name] = _Section(self._folder / name, kind)
        return self._sections[name]


class _Section:
    """Numbers of one kind that are written to a file of their own, a block at a time."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind, self.count = kind, 0
        self._buffer = array(kind)
        self._path = path

    def append(self, number: int) -> None:
        self._buffer.append(number)
        self._added(1)

    def extend(self, numbers: Sequence[int] | bytes) -> None:
        self._buffer.extend(numbers)
        self._added(len(numbers))

    def _added(self, count: int) -> None:
        self.count += count
        if len(self._buffer) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._buffer)
        del self._buffer[:]

    def finish(self) -> int:
        """Write the rest; return the file's size in bytes."""
        self._flush()
        return self.count * self._buffer.itemsize


def _write_header(file: BinaryIO, header: Mapping[str, Any], places: Mapping[str, tuple[str, int]]) -> int:
    """Write the header in front of the sections; return where the first of them begins."""
    room = len(json.dumps(header)) + 200 + 120 * len(places)
    start = offset = -(-(len(_MAGIC) + 8 + room) // 4096) * 4096
    sections: dict[str, tuple[str, int, int]] = {}
    for name, (kind, size) in places.items():
        offset += -offset % 8
        sections[name] = (kind, offset, size)
        offset += size
    text = json.dumps({**header, "sections": sections, "size": offset}).encode()
    file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
    return start


def _copy(path: Path, target: BinaryIO) -> None:
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            target.write(block)
    os.unlink(path)  # noqa: PTH108
