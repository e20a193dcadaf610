"""Refuse files that cost far more time or memory to decode than their pixels do, by their structure alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from visionadapt.errors import ImageError

MOST_SCANS = 200
"""Scans of a JPEG; an encoder that sends every bit of every coefficient alone needs fewer."""
_SCANNED_PIXELS = 2**31
"""Scans times pixels of a JPEG above 20 scans, at some 10 ns each."""
_USUAL_SCANS = 20
_MOST_SEGMENTS = 10_000
_USUAL_SEGMENTS = 64
_SEGMENTS = frozenset(bytes((0xFF, marker)) for marker in (*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE))
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_SMALL = 8192
_MOST_JUNK = 2**20
_MOST_VALUES = 2**20
"""Numbers in one tag of a TIFF, such as the places of its strips."""
_MOST_BLOCKS = 2**20
_MOST_COUNTED = 10_000
"""Pages or frames to count; further ones are `more than 10,000`."""
_FIRST_ENTRIES = 4096

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(....)(....)", re.DOTALL)
_JPEG2000 = re.compile(rb"\xff\x4f\xff\x51....(....)(....)", re.DOTALL)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each TIFF type."""
_BYTES, _TEXT, _ANYTHING, _SUBFILE = 1, 2, 7, 6


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, first and last byte of every segment up to the end of the image, past what is in between."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        length = int.from_bytes(data[at : at + 2])
        if marker == 0xD9 or at + 2 > len(data) or length < 2:
            return
        yield marker, at + 2, min(at + length, len(data))
        at += length


def check_jpeg(data: bytes, file: str) -> None:
    """Raise ImageError for a JPEG whose header has no end, or that has more scans than its pixels need."""
    scans = _scans_by_header(data)
    if scans == 1 or (scans and _count_pairs(data, b"\xff\xda") < _USUAL_SCANS):
        return
    scans = frame = end = junk = 0
    for number, (marker, start, stop) in enumerate(jpeg_markers(data)):
        junk += start - 4 - max(end, 2) if not scans else 0
        if (number > _MOST_SEGMENTS or junk > _MOST_JUNK) and not scans:
            raise ImageError(file, "is a JPEG with more segments or more bytes between them than an image has")
        if marker == 0xDA:
            scans += 1
            if scans == 1 and _count_pairs(data[stop:], b"\xff\xda") < _USUAL_SCANS:
                return
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not frame:
            frame = int.from_bytes(data[start + 1 : start + 3]) * int.from_bytes(data[start + 3 : start + 5])
        if scans > MOST_SCANS or (scans > _USUAL_SCANS and scans * frame > _SCANNED_PIXELS):
            reason = f"is a JPEG of {frame:,} pixels with {scans} scans or more, which take too long to decode"
            raise ImageError(file, f"{reason}; save it again")
        end = stop


def _scans_by_header(data: bytes) -> int:
    """Return 1 if a JPEG has one scan, 2 if several may follow, and 0 if its header is unusual: long, or with gaps.

    It has one where the frame is sequential and the first scan has all components: libjpeg then decodes no other.
    """
    at, components = 2, 0
    for _ in range(_USUAL_SEGMENTS):
        begin = data[at : at + 2]
        if begin == b"\xff\xda":
            return 1 if data[at + 4 : at + 5] == bytes((components,)) else 2
        if begin not in _SEGMENTS:
            return 0
        if begin in _SEQUENTIAL:
            components = data[at + 9] if at + 9 < len(data) else 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def _count_pairs(data: bytes, pair: bytes) -> int:
    """Return `data.count(pair)` for two different bytes, several times as fast on a compressed stream."""
    if len(data) < _SMALL:
        return data.count(pair)
    number = int.from_bytes(pair, "little")
    halves = (np.frombuffer(data, "<u2", (len(data) - first) // 2, first) for first in (0, 1))
    return sum(int(np.count_nonzero(half == number)) for half in halves)


class Pages(NamedTuple):
    """How many pages or frames a file has, up to a bound, and whether it has more."""

    number: int
    more: bool

    def __str__(self) -> str:
        return f"first of {'more than ' * self.more}{self.number:,} frames"


def check_tiff(data: bytes, file: str) -> Pages:
    """Raise ImageError for a TIFF whose first page has tags of more values than an image needs; count its pages."""
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in data[2:4]
    seen: set[int] = set()
    following = _integer(data, 8 if big else 4, 8 if big else 4, order)
    while 0 < following < len(data) and following not in seen and len(seen) < _MOST_COUNTED:
        entries = _integer(data, following, 8 if big else 2, order)
        first, size = following + (8 if big else 2), (20 if big else 12)
        if not seen:
            _check_tags(data[first : first + entries * size], (order, big), len(data), file)
        seen.add(following)
        end = first + entries * size
        following = _integer(data, end, 8 if big else 4, order) if end <= len(data) else 0
    return Pages(len(seen), len(seen) == _MOST_COUNTED and 0 < following < len(data))


def _check_tags(directory: bytes, kind: tuple[str, bool], size: int, file: str) -> None:
    order, big = kind
    total = 0
    for _, form, count, _ in struct.iter_unpack(order + ("HHQQ" if big else "HHII"), _whole(directory, big)):
        total += count * _SIZES.get(form, 1)
        numbers = form not in (_BYTES, _TEXT, _ANYTHING, _SUBFILE)
        if total > size + 2**16 or (numbers and count > _MOST_VALUES):
            raise ImageError(file, "truncated or corrupt: its tags hold more values than an image needs, or than fit")


def _whole(directory: bytes, big: bool) -> bytes:
    size = 20 if big else 12
    return directory[: min(len(directory) // size, _FIRST_ENTRIES) * size]


def _integer(data: bytes, at: int, size: int, order: str) -> int:
    return int.from_bytes(data[at : at + size], "little" if order == "<" else "big")


def gif_frames(data: bytes, file: str) -> Pages:
    """Count the frames of a GIF by its blocks; raise ImageError where its first image lies behind too many of them.

    The blocks are those of the GIF89a specification, 12 to 26.
    """
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10:11] and data[10] & 128 else 0)
    frames = steps = 0
    while at < len(data) and frames < _MOST_COUNTED:
        kind = data[at]
        if kind == 0x2C:
            frames += 1
            flags = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 << ((flags & 7) + 1) if flags & 128 else 0)
        elif kind == 0x21:
            at += 2
        elif kind == 0x3B:
            break
        else:
            at, steps = at + 1, steps + 1
            continue
        while at < len(data) and data[at] and steps < _MOST_BLOCKS:
            at, steps = at + 1 + data[at], steps + 1
        at, steps = at + 1, steps + 1
        if steps >= _MOST_BLOCKS:
            if not frames:
                raise ImageError(file, "is a GIF with more blocks before its first image than an image has")
            return Pages(frames, True)
    return Pages(frames, frames == _MOST_COUNTED)


def check_parts(data: bytes, max_pixels: int, file: str) -> None:
    """Raise ImageError for an icon file that holds a PNG or JPEG 2000 of more than `max_pixels`."""
    for pattern in (_PNG, _JPEG2000):
        for found in pattern.finditer(data):
            width, height = (int.from_bytes(side) for side in found.groups())
            if width * height > max_pixels:
                reason = f"holds an image of {width}×{height} pixels, more than the limit max_pixels={max_pixels:,}"
                raise ImageError(file, f"{reason}: raise it (train: --max-pixels)")
