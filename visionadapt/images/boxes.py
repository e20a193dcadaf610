"""Boxes of ISO base media files (HEIC, AVIF, JPEG 2000): where the bytes of an image lie in its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Box(NamedTuple):
    """A box: its type, and where its content begins and ends; the end may lie behind the end of the file."""

    name: bytes
    start: int
    end: int


@dataclass
class Items:
    """Items of a HEIC or AVIF file (ISO 14496-12, 8.11).

    Attributes:
        primary: number of the image to show; 0 where the file has none.
        kinds: type of each item, such as `hvc1` or `grid`.
        extents: places in the file of each item: first byte and length, 0 for up to the end of the file.
        parts: items that each item is made of: such as the tiles of a grid.
    """

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    parts: dict[int, list[int]] = field(default_factory=dict)

    def needed(self) -> list[int]:
        """Return the primary image and every item that it is made of."""
        found = [self.primary]
        for item in found:
            found += [part for part in self.parts.get(item, []) if part not in found]
        return found


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes between two places of a file; stop where one is not well-formed."""
    end = len(data) if end is None else end
    while start + 8 <= min(end, len(data)):
        size, name, head = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = end if size == 0 else start + size
        if stop < start + head:
            return
        yield Box(name, start + head, stop)
        start = stop


def items(data: bytes) -> Items | None:
    """Read the items of a HEIC or AVIF file; None where it has none, or they are stored in a way unknown here."""
    meta = next((box for box in boxes(data) if box.name == b"meta"), None)
    if meta is None or meta.end > len(data):
        return None
    found = Items()
    inside = {box.name: data[box.start : box.end] for box in boxes(data, meta.start + 4, meta.end)}
    try:
        found.primary = _primary(inside[b"pitm"])
        found.kinds = dict(_kinds(inside[b"iinf"]))
        found.extents = _extents(_Fields(inside[b"iloc"]))
        found.parts = _parts(inside.get(b"iref", bytes(4)))
    except (KeyError, EOFError):
        return None
    return found


class _Fields:
    """Read big-endian integers one after the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def read(self, size: int) -> int:
        if self.at + size > len(self.data):
            raise EOFError
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at])


def _primary(body: bytes) -> int:
    return _Fields(body, 4).read(4 if body[0] else 2)


def _kinds(body: bytes) -> Iterator[tuple[int, bytes]]:
    for box in boxes(body, 4 + (4 if body[0] else 2)):
        version = body[box.start]
        at = box.start + 4 + (4 if version == 3 else 2) + 2
        if box.name == b"infe" and version >= 2:
            yield int.from_bytes(body[box.start + 4 : at - 2]), body[at : at + 4]


def _extents(fields: _Fields) -> dict[int, list[tuple[int, int]]]:
    """Return the extents of the items that lie directly in the file (construction method 0)."""
    version = fields.read(4) >> 24
    sizes = fields.read(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    found = {}
    for _ in range(fields.read(4 if version == 2 else 2)):
        item = fields.read(4 if version == 2 else 2)
        method = fields.read(2) & 15 if version else 0
        fields.read(2)
        start = fields.read(base)
        places = []
        for _ in range(fields.read(2)):
            fields.read(index if version else 0)
            at = start + fields.read(offset)
            places.append((at, fields.read(length)))
        if method == 0:
            found[item] = places
    return found


def _parts(body: bytes) -> dict[int, list[int]]:
    """Return what each item is made of (`dimg`)."""
    size = 4 if body[0] else 2
    found: dict[int, list[int]] = {}
    for box in boxes(body, 4):
        fields = _Fields(body[: box.end], box.start)
        item = fields.read(size)
        targets = [fields.read(size) for _ in range(fields.read(2))]
        if box.name == b"dimg":
            found.setdefault(item, []).extend(targets)
    return found
