"""Detect files that lack a part of their image, which their decoders would fill without an error."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.boxes import boxes, items
from visionadapt.images.inflate import Inflater
from visionadapt.images.limits import MOST_SCANS

_ZEROS = bytes(32)
"""No compressed stream ends like this; a file whose end was never written does."""

_UNWRITTEN = "its end was never written, it holds only zeros"
_HEVC = (b"hvc1", b"hev1")
_COMPRESSION, _DEFLATE, _JPEG = 259, (8, 32946), 7
_QOI_END = bytes(7) + b"\1"
_MOST_CHUNKS = 2**16
_WEBP_BITS, _WEBP_HEADER = 2, 64
_PCX_PALETTE, _PCX_GREY = 769, 2
_MOST_TILE_PARTS = 2**20


def check_complete(data: bytes, image: Image.Image, file: str) -> None:
    """Refuse a file that lacks a part of its image, as far as that shows before it is decoded.

    PNG has its own check (`visionadapt.images.png`), and JPEG is checked while it is decoded.

    Args:
        data: the file's bytes.
        image: the Pillow image opened from them, not loaded yet.
        file: what errors call it.

    Raises:
        ImageError: a part of the image is missing.
    """
    check = _CHECKS.get(image.format or "")
    problem = check(data, image) if check else None
    if problem:
        raise ImageError(file, f"truncated or corrupt: {problem}")


def _tiff(data: bytes, image: Image.Image) -> str | None:
    extents = {tile[1] for tile in getattr(image, "tile", [])}
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    if covered < image.width * image.height:
        return f"its strips do not fill {image.width}×{image.height} pixels"
    tags = getattr(image, "tag_v2", {})
    largest = 16 * max((right - left) * (bottom - top) for left, top, right, bottom in extents)
    most = _raw_bytes(tags, extents) if tags.get(_COMPRESSION, 1) == 1 else len(data)
    for offsets, counts in ((273, 279), (324, 325)):
        for start, stated in zip(_integers(tags.get(offsets)), _integers(tags.get(counts)), strict=False):
            count = min(stated, most)
            if start + count > len(data):
                return f"a strip ends at byte {start + count:,}, and the file has {len(data):,}"
            stored = memoryview(data)[start : start + count]
            if tags.get(_COMPRESSION) in _DEFLATE and not _inflates(stored, largest):
                return "a strip cannot be inflated"
            if tags.get(_COMPRESSION) == _JPEG and data.count(b"\xff\xda", start, start + count) > MOST_SCANS:
                return f"a strip has more than {MOST_SCANS} scans"
    return None


def _raw_bytes(tags: Mapping[int, object], extents: set[tuple[int, int, int, int]]) -> int:
    """Return the bytes of the largest uncompressed strip or tile, whatever the file states."""
    bits = max(_integers(tags.get(258)) or (8,)) * max(_integers(tags.get(277)) or (1,))
    return max((((right - left) * bits + 7) // 8 * (bottom - top) for left, top, right, bottom in extents), default=0)


def _inflates(stream: memoryview, size: int) -> bool:
    """Whether a strip has the right checksum, which libtiff does not compare, and is no larger than an image can be."""
    try:
        return Inflater(stream).finish(size)
    except zlib.error:
        return False


def _integers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in values if isinstance(part, int))


def _heif(data: bytes, image: Image.Image) -> str | None:
    """Compare the extents of the image and its tiles with the file; libheif leaves out tiles that it cannot read."""
    found = items(data)
    if found is None:
        return None
    for item in found.needed():
        places = [(start, start + length if length else len(data)) for start, length in found.extents.get(item, [])]
        for start, end in places:
            if start >= end or end > len(data):
                return f"a part of the image ends at byte {end:,}, and the file has {len(data):,}"
        last = b"".join(data[start:end][-len(_ZEROS) :] for start, end in places)
        kind = found.kinds.get(item)
        if (kind in _HEVC and last.endswith(b"\0")) or (kind == b"av01" and last.endswith(_ZEROS)):
            return _UNWRITTEN
    return None


def _webp(data: bytes, image: Image.Image) -> str | None:
    size = 8 + int.from_bytes(data[4:8], "little")
    lossless = data[12:16] == b"VP8L"  # a flat lossy image may end in zeros
    if lossless and data[:size].endswith(_ZEROS):
        return _UNWRITTEN
    return "it has fewer bytes than its blocks of pixels need" if _lacks_blocks(data) else None


def _lacks_blocks(data: bytes) -> bool:
    """Whether the first lossy frame of a WebP is too short for its size, before its pixels take memory.

    The prediction of each block of 16 × 16 pixels is coded with fixed probabilities (RFC 6386, 11.2), in 3.4 bits or
    more; two are asked for, without those of a header.
    """
    at, name = 12, b""
    for _ in range(_MOST_CHUNKS):
        name = data[at : at + 4]
        if name in (b"VP8 ", b"VP8L", b""):
            break
        at += 24 if name == b"ANMF" else 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    frame = data[at + 8 : at + 18]
    width, height = (int.from_bytes(frame[place : place + 2], "little") & 0x3FFF for place in (6, 8))
    first = int.from_bytes(frame[:3], "little") >> 5
    blocks = -(-width // 16) * -(-height // 16)
    return name == b"VP8 " and 8 * min(first, len(data) - at) + _WEBP_HEADER < _WEBP_BITS * blocks


def _qoi(data: bytes, image: Image.Image) -> str | None:
    return _UNWRITTEN if data.endswith(_ZEROS) and _QOI_END not in data[14:] else None


def _jpeg2000(data: bytes, image: Image.Image) -> str | None:
    """Walk the tile-parts of the codestream (ISO 15444-1, A.4.2), and compare them with the number of tiles."""
    start = next((box.start for box in boxes(data) if box.name == b"jp2c"), 0)
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        return None
    size = [int.from_bytes(data[start + at : start + at + 4]) for at in range(8, 40, 4)]
    tiles = -(-(size[0] - size[6]) // max(size[4], 1)) * -(-(size[1] - size[7]) // max(size[5], 1))
    at, seen, steps = start + 2, set(), 0
    while (marker := data[at : at + 2]) not in (b"\xff\xd9", b""):
        steps += 1
        if steps > _MOST_TILE_PARTS:
            return f"it holds more than {_MOST_TILE_PARTS:,} tile-parts"
        length = int.from_bytes(data[at + 2 : at + 4])
        if marker == b"\xff\x90" and at + 12 < len(data):
            seen.add(data[at + 4 : at + 6])
            length = int.from_bytes(data[at + 6 : at + 10]) - 2 or len(data)
        at += 2 + max(length, 2)
    return None if len(seen) >= tiles else f"it holds {len(seen)} of {tiles} tiles"


def _pcx(data: bytes, image: Any) -> str | None:
    """Find the palette of an image with 256 colours at its end, behind all of its pixels."""
    version, bits, planes, colours = data[1], data[3], data[65], data[68]
    if (version, bits, planes) != (5, 8, 1):
        return None
    if data[-_PCX_PALETTE : -_PCX_PALETTE + 1] != b"\x0c":
        return None if colours == _PCX_GREY else "its palette is missing"
    _, _, start, arguments = image.tile[0]
    try:
        Image.frombytes(image.mode, image.size, data[start:-_PCX_PALETTE], "pcx", arguments)
    except ValueError:
        return "its palette is cut"
    return None


def _ppm(data: bytes, image: Any) -> str | None:
    """Refuse a plain PPM or PGM whose last number could be the beginning of a longer one."""
    if data[:2] not in (b"P2", b"P3") or data[-1:].isspace():
        return None
    numbers = data[-32:].split()
    maximum = image.tile[0][3][1]
    last = numbers[-1] if numbers else b""
    return "its last number may be cut" if last.isdigit() and 0 < int(last) * 10 <= maximum else None


_CHECKS: Mapping[str, Callable[[bytes, Image.Image], str | None]] = {
    "AVIF": _heif,
    "HEIF": _heif,
    "JPEG2000": _jpeg2000,
    "PCX": _pcx,
    "PPM": _ppm,
    "QOI": _qoi,
    "TIFF": _tiff,
    "WEBP": _webp,
}
