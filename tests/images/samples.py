"""Images and image files that the tests generate."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

Array = npt.NDArray[Any]
AVIF = features.check("avif")
"""Whether this build of Pillow reads and writes AVIF."""


def textured(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Something like a photograph: shading, edges at several scales, a little noise; uint8 [H, W, 3]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for scale in (97.0, 41.0, 13.0, 5.0):
        angle, phase = generator.uniform(0, np.pi), generator.uniform(0, 6, 3)
        wave = (rows * np.sin(angle) + columns * np.cos(angle))[..., None] / scale
        image += np.sin(wave + phase) * np.sqrt(scale) * 4
    disc = (rows - height / 3) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 4) ** 2
    image[disc] += generator.uniform(-90, 90, 3)
    image += generator.normal(0, 6, image.shape)
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def smooth(height: int = 24, width: int = 40) -> npt.NDArray[np.uint8]:
    """A gradient that JPEG keeps within a few levels; uint8 [H, W, 3], no symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [40 + 200 * columns / width, 30 + 180 * rows / height, 220 - 100 * (rows + columns) / (height + width)], axis=-1
    ).astype(np.uint8)


def image_of(array: Array, mode: str) -> Image.Image:
    """A Pillow image of a mode that has as many channels as the uint8 array."""
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), np.ascontiguousarray(array).tobytes())


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(samples: Array, bits: int, colour: int, transparent: bytes | None = None) -> bytes:
    """A PNG written by hand (ISO 15948): samples [H, W, C] of 1, 2, 4, 8 or 16 bits, `colour` type 0, 2, 4 or 6."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, int(np.prod(samples.shape[1:])))
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    elif bits == 8:
        rows = [row.astype(np.uint8).tobytes() for row in flat]
    else:
        spread = (flat[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in spread]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *([(b"tRNS", transparent)] if transparent else []), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def tiff(
    samples: Array, bits: int = 0, *, planes: bool = False, tile: int = 0, tags: dict[int, Any] | None = None
) -> bytes:
    """A TIFF written by hand (TIFF 6.0), uncompressed and little-endian, with a strip for every two rows.

    Args:
        samples: [H, W] or [H, W, bands]; 3 bands and more are RGB, 1 and 2 begin with grey.
        bits: bits per sample, packed from the highest; by default those of the dtype.
        planes: whether the bands lie in planes of their own.
        tile: side of square tiles, a multiple of 16, in place of strips.
        tags: further tags, each a number or several of 16 bits.
    """
    samples = samples[..., None] if samples.ndim == 2 else samples
    height, width, bands = samples.shape
    rows, columns = (tile, tile) if tile else (2, width)
    padded = np.pad(samples, ((0, -height % rows if tile else 0), (0, -width % columns), (0, 0)))
    parts = [
        _packed(plane[top : top + rows, left : left + columns], bits)
        for plane in (np.split(padded, bands, axis=2) if planes else [padded])
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]
    starts = [8 + sum(len(part) for part in parts[:place]) for place in range(len(parts))]
    layout = {322: columns, 323: rows, 324: starts, 325: [len(part) for part in parts]}
    entries: dict[int, Any] = {256: width, 257: height, 258: [bits or 8 * samples.dtype.itemsize] * bands, 259: 1}
    entries |= {262: 2 if bands > 2 else 1, 277: bands, 284: 2 if planes else 1}
    entries |= layout if tile else {273: layout[324], 278: rows, 279: layout[325]}
    entries |= {339: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * bands, **(tags or {})}
    body = b"".join(parts) + b"\0" * (sum(map(len, parts)) % 2)
    table, behind = b"", 8 + len(body) + 2 + 12 * len(entries) + 4
    extra = b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        wide = tag in (273, 279, 324, 325)
        numbers = struct.pack(f"<{len(values)}{'I' if wide else 'H'}", *values)
        if len(numbers) > 4:
            numbers, extra = struct.pack("<I", behind + len(extra)), extra + numbers
        table += struct.pack("<HHI", tag, 4 if wide else 3, len(values)) + numbers.ljust(4, b"\0")
    return (
        b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(entries)) + table + bytes(4) + extra
    )


def _packed(rows: Array, bits: int) -> bytes:
    if not bits or bits == 8 * rows.dtype.itemsize:
        return rows.astype(rows.dtype.newbyteorder("<")).tobytes()
    spread = (rows.reshape(len(rows), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
