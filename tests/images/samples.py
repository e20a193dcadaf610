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
