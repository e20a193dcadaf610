"""Check a PNG file's chunks and its compressed stream, and keep only the chunks that its first image needs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.inflate import Inflater

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_PROFILE = 16 * 2**20
_MOST_SURPLUS = 2**16
_BLOCK = 2**16 - 1
_PALETTE = 3
_MOST_CHUNKS = 200_000
_MOST_STORED = 2**27
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_UNLIKELY = (201, 254, 3, 77)
"""A pixel that hardly any row of an image consists of, and none of 2 or 4 bits."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class Checked(NamedTuple):
    """A PNG that holds only what its first image needs, and what was repaired."""

    data: bytes
    repairs: list[str]


class _Chunk(NamedTuple):
    name: bytes
    body: memoryview
    whole: memoryview
    intact: bool


def checked_png(data: bytes, max_pixels: int, file: str) -> Checked:
    """Return a PNG of the first image alone: its pixels, colours and orientation.

    Other chunks (texts, times, later frames) are left out, so damage to them costs nothing. What `load_png` cannot
    check while it decodes (interlaced images, 16 bits, wrong checksums) is inflated here, and stored uncompressed below
    128 MiB. An image of more than `max_pixels` is not inflated; the caller refuses it by its header.

    Raises:
        ImageError: a part of the image is missing or damaged.
    """
    chunks = list(islice(_chunks(data), _MOST_CHUNKS + 1))
    if len(chunks) > _MOST_CHUNKS:
        raise ImageError(file, f"is a PNG of more than {_MOST_CHUNKS:,} chunks; save it again")
    for chunk in chunks:
        if chunk.name in (b"IHDR", b"PLTE", b"tRNS") and not chunk.intact:
            raise ImageError(file, f"truncated or corrupt: PNG chunk {chunk.name.decode()} fails its checksum")
    if chunks and chunks[0].name == b"CgBI":
        raise ImageError(file, "is a PNG rewritten by Xcode (CgBI), which is not supported: use the original file")
    header = next((bytes(chunk.body) for chunk in chunks if chunk.name == b"IHDR" and len(chunk.body) == 13), None)
    if header is None:
        raise ImageError(file, "truncated or corrupt PNG: its header cannot be read")
    if header[9] == _PALETTE and not any(chunk.name == b"PLTE" for chunk in chunks):
        raise ImageError(file, "truncated or corrupt: PNG chunk PLTE is missing")
    kept, repairs = _extras(chunks)
    pixels = [chunk for chunk in chunks if chunk.name == b"IDAT"]
    parts: list[memoryview | bytes] = [chunk.whole for chunk in pixels]
    intact = all(chunk.intact for chunk in pixels)
    width, height = struct.unpack(">II", header[:8])
    if 0 < width * height <= max_pixels and header[9] in _SAMPLES and not (intact and _is_plain(header)):
        stream = b"".join(chunk.body for chunk in pixels)
        parts = [*_written(b"IDAT", _recompressed(stream, _raw_size(header), file))]
        repairs += [] if intact else ["wrong checksum of PNG chunk IDAT ignored"]
    before = (part for name, content in kept for part in _written(name, content))
    return Checked(b"".join((SIGNATURE, *before, *parts, *_written(b"IEND", b""))), [*repairs, *_frames(chunks)])


def load_png(image: Any, data: bytes, file: str) -> None:
    """Load the pixels of an image that Pillow has opened from what `checked_png` returned.

    Pillow's decoder stops without an error where the stream ends early, or before its checksum. Hence it decodes into
    an image with one row more: it then reads the stream to its end, must reach the last row, and must not reach the
    one below. Where that is not certain, the stream is inflated separately.

    Raises:
        ImageError: a part of the pixels is missing or damaged.
    """
    if _is_plain(header := data[16:29]):
        stream = b"".join(body for name, body in _bodies(data) if name == b"IDAT")
        pixels = _decoded(stream, image)
        if pixels is None:
            body = _recompressed(stream, _raw_size(header), file)
            pixels = Image.frombytes(image.mode, image.size, body, "zip", image.tile[0].args).im
        image.im, image.tile = pixels, []
    image.load()


def _is_plain(header: bytes) -> bool:
    """Whether rows follow one another, of samples that are no more than 8 bits and not black and white alone."""
    bits, colour, interlaced = header[8], header[9], header[12]
    return bits <= 8 and not interlaced and (bits, colour) != (1, 0)


def _decoded(stream: bytes, image: Any) -> Any:
    """Decode a zlib stream of filtered rows to the core of a Pillow image; None where it may be damaged."""
    width, height = image.size
    unlikely = _UNLIKELY[: len(image.getbands())]
    taller = Image.new(image.mode, (width, height + 1), None)
    taller.paste(unlikely, (0, height - 1, width, height + 1))
    try:
        taller.frombytes(stream, "zip", image.tile[0].args)
    except ValueError:
        return None
    rows = taller.crop((0, height - 1, width, height + 1)).tobytes()
    untouched = bytes(unlikely) * width
    if rows[len(untouched) :] != untouched or rows.startswith(untouched):
        return None
    return taller.im.crop((0, 0, width, height))  # Image.crop has a limit of its own on pixels


def _extras(chunks: Sequence[_Chunk]) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Return the chunks to keep beside the pixels, in order and each once, and what was ignored."""
    kept: dict[bytes, bytes] = {}
    repairs = []
    for name, body, _, intact in chunks:
        if name in (b"IDAT", b"IEND", b"fdAT"):
            continue
        if not intact:
            repairs.append(f"damaged PNG chunk {name.decode('ascii', 'replace')} ignored")
        elif name == b"iCCP" and not _is_profile(bytes(body)):
            repairs.append("broken colour profile ignored")
        elif name in (b"IHDR", b"PLTE", b"tRNS", b"sBIT", b"eXIf", b"iCCP"):
            kept.setdefault(name, bytes(body))
    exif = [(b"eXIf", kept.pop(b"eXIf"))] if b"eXIf" in kept else []
    order = (b"IHDR", b"iCCP", b"sBIT", b"PLTE", b"tRNS")
    return [*((name, kept[name]) for name in order if name in kept), *exif], repairs


def _is_profile(body: bytes) -> bool:
    """Whether an iCCP chunk (name, 0, method 0, zlib stream) holds a profile of at most 16 MiB."""
    _, _, stream = body.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        return stream[:1] == b"\0" and bool(inflater.decompress(stream[1:], _MOST_PROFILE)) and inflater.eof
    except zlib.error:
        return False


def _recompressed(stream: bytes, size: int, file: str) -> bytes:
    """Inflate a stream to `size` bytes, compare its checksum, and store it again without compression if it is small."""
    inflater = Inflater(stream)
    large, raw = size > _MOST_STORED, b""
    try:
        if large:
            for start in range(0, size, 2**22):
                missing = min(2**22, size - start)
                missing -= len(inflater.read(missing))
                if missing:
                    break
        else:
            raw = inflater.read(size)
            missing = size - len(raw)
        ended = inflater.finish(_MOST_SURPLUS)
    except zlib.error as error:
        raise ImageError(file, f"truncated or corrupt: PNG chunk IDAT cannot be inflated ({error})") from error
    if missing or not ended:
        raise ImageError(file, "truncated or corrupt: PNG chunk IDAT is incomplete")
    return stream if large else _stored(raw)


def _stored(raw: bytes) -> bytes:
    """Return a zlib stream of stored blocks (RFC 1950, RFC 1951, 3.2.4); `zlib.compress(raw, 0)` takes longer."""
    view, parts = memoryview(raw), [memoryview(b"\x78\x01")]
    for start in range(0, len(raw), _BLOCK):
        block = view[start : start + _BLOCK]
        last = start + _BLOCK >= len(raw)
        parts += [memoryview(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF)), block]
    return b"".join([*parts, zlib.adler32(raw).to_bytes(4)])


def _raw_size(header: bytes) -> int:
    """Bytes of the filtered rows of a PNG (ISO 15948, 7.2 and 8.2), from its IHDR chunk."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    return sum(rows * (1 + -(-columns * bits * _SAMPLES[colour] // 8)) for columns, rows in sizes if columns > 0 < rows)


def _frames(chunks: Sequence[_Chunk]) -> list[str]:
    """Return `first of N frames` for an animated PNG, whose first image may stand before its frames."""
    names = [chunk.name for chunk in chunks]
    control = next((chunk.body for chunk in chunks if chunk.name == b"acTL" and len(chunk.body) == 8), None)
    if control is None or b"IDAT" not in names:
        return []
    count = int.from_bytes(control[:4], "big") + (b"fcTL" not in names[: names.index(b"IDAT")])
    return [f"first of {count} frames"] if count > 1 else []


def _bodies(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and the body of every chunk of a file that `checked_png` returned."""
    view, at = memoryview(data), len(SIGNATURE)
    while at < len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += 12 + length


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield every chunk up to IEND; the last one may be cut short."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        body, checksum = view[at + 8 : at + 8 + length], view[at + 8 + length : at + 12 + length]
        intact = len(checksum) == 4 and zlib.crc32(body, zlib.crc32(name)) == int.from_bytes(checksum)
        yield _Chunk(name, body, view[at : at + 12 + length], intact)
        if name == b"IEND":
            return
        at += 12 + length


def _written(name: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
    return struct.pack(">I", len(body)) + name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
