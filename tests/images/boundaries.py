"""Where the parts of an image file begin and end: the places at which a file is most likely to be cut."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from visionadapt.images.boxes import boxes, items

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"iref": 4, b"jp2h": 0, b"dinf": 0}
"""Boxes that hold boxes, and the bytes in between."""
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_OFFSETS = {273: 279, 324: 325}
_TRAILERS = (8, 26, 768, 769)
"""Bytes of what ends a QOI, a TGA and a PCX."""


def boundaries(data: bytes) -> list[int]:
    """Return the offsets in a whole file at which a header, table, segment, chunk, strip or row begins or ends."""
    if data.startswith(b"\x89PNG"):
        found = _png(data)
    elif data.startswith((b"\xff\xd8", b"\xff\x4f\xff\x51")):
        found = _markers(data)
    elif data.startswith(b"GIF8"):
        found = _gif(data)
    elif data.startswith(b"RIFF"):
        found = _riff(data)
    elif data.startswith((b"II*\0", b"MM\0*")):
        found = _tiff(data)
    elif data[4:8] in (b"ftyp", b"jP  "):
        found = _boxes(data, 0, len(data))
    else:
        found = _rows(data)
    return sorted({at for at in found if 0 < at < len(data)})


def _png(data: bytes, at: int = 8) -> Iterator[int]:
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield from (at, at + 8, end - 4, end)
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end


def _markers(data: bytes) -> Iterator[int]:
    """Markers of JPEG (ITU T.81, B.1.1.3) and JPEG 2000; some may be bytes of a segment."""
    for found in re.finditer(rb"\xff[^\x00\xff]", data, re.DOTALL):
        yield from found.span()


def _gif(data: bytes) -> Iterator[int]:
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 128 else 0)
    yield from (6, 13, at)
    while at < len(data) and data[at] != 0x3B:
        image = data[at] == 0x2C
        at += 10 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 128 else 0) + 1 if image else 2
        yield at
        while at < len(data) and data[at]:
            at += 1 + data[at]
            yield at
        at += 1
        yield at


def _riff(data: bytes) -> Iterator[int]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield from (at, at + 8, at + 8 + size)
        at += 8 + size + size % 2


def _tiff(data: bytes) -> Iterator[int]:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    while at:
        (count,) = struct.unpack_from(order + "H", data, at)
        yield from (at, at + 2, at + 2 + 12 * count, at + 6 + 12 * count)
        values: dict[int, tuple[int, ...]] = {}
        for place in range(at + 2, at + 2 + 12 * count, 12):
            tag, form, number = struct.unpack_from(order + "HHI", data, place)
            size = number * _SIZES.get(form, 1)
            start = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
            yield from (place, start, start + size) if size > 4 else (place,)
            if form in (3, 4):
                values[tag] = struct.unpack_from(f"{order}{number}{'H' if form == 3 else 'I'}", data, start)
        for offsets, counts in _OFFSETS.items():
            for start, size in zip(values.get(offsets, ()), values.get(counts, ()), strict=False):
                yield from (start, start + size)
        (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)


def _boxes(data: bytes, start: int, end: int) -> Iterator[int]:
    for box in boxes(data, start, end):
        yield from (box.start - 8, box.start, box.end)
        if box.name in _CONTAINERS:
            yield from _boxes(data, box.start + _CONTAINERS[box.name], box.end)
        if box.name == b"jp2c":
            yield from (box.start + at for at in _markers(data[box.start : box.end]))
    found = items(data) if start == 0 else None
    for extents in found.extents.values() if found else ():
        for first, length in extents:
            yield from (first, first + length)


def _rows(data: bytes) -> Iterator[int]:
    """Where the pixels begin, some of their rows, and trailers; of an icon, its directory, and the image in it."""
    if data[:4] == b"\0\0\1\0":
        for place in range(6, 6 + 16 * data[4], 16):
            size, start = struct.unpack_from("<II", data, place + 8)
            yield from (place, place + 16, start, start + 40, start + size)
            if data[start : start + 4] == b"\x89PNG":
                yield from _png(data, start + 8)
        return
    yield from (found.end() for found in re.finditer(rb"\n", data[:200]))
    yield from (len(data) - size for size in _TRAILERS)
    with Image.open(io.BytesIO(data)) as image:
        start, height = max((tile[2] for tile in image.tile), default=0), image.height  # type: ignore[attr-defined]
    yield from (start + (len(data) - start) * row // height for row in (0, 1, height // 2, height - 1))
