"""Decode JPEGs with simplejpeg: the same bits as Pillow, faster, and an error where Pillow returns part of an image."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.channels import Pixels, Repaired
from visionadapt.images.colour_profiles import inks_to_rgb, pixels_to_srgb
from visionadapt.images.strips import by_strips
from visionadapt.images.unsupported import jpeg_segments

_DAMAGED = re.compile(r"Corrupt JPEG data|Premature end", re.IGNORECASE)
_CUT = re.compile(r"Premature end of JPEG file", re.IGNORECASE)
_END = b"\xff\xd9"
_ZEROS = bytes(16)
"""A file whose end was never written ends like this."""
_HEADER = {0xC4, 0xCC, 0xDA, 0xDB, 0xDD, *range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)}
"""Markers of segments that the pixels depend on (ITU T.81, B.2)."""

_APPLICATION = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
"""Segments with the colour space and the orientation: how each begins, and its least length in bytes."""


def decode_jpeg(
    data: bytes, image: Image.Image, file: str, least: int = 0, profile: bytes | None = None
) -> Repaired | None:
    """Decode a JPEG to uint8 [H, W, 3] as stored, before the EXIF orientation is applied, and list what was repaired.

    A baseline JPEG that lacks only its end marker is read, and so is one whose damage lies in parts of the header on
    which no pixel depends. CMYK is read as Adobe stores it, inverted, as in Pillow.

    Args:
        data: the file's bytes.
        image: the Pillow image opened from them.
        file: what errors call it.
        least: above 0, decode at the smallest of the scales ×1, ×½, ×¼ and ×⅛ at which neither side is shorter than
            this many pixels.
        profile: the colour profile to apply, if any.

    Returns:
        Pixels and repairs; None where simplejpeg fails on an undamaged file, which Pillow has to decode.

    Raises:
        ImageError: parts of the image are missing.
    """
    space = "CMYK" if image.mode == "CMYK" else "RGB"
    words = ""
    for repair, attempt in _attempts(data):
        try:
            pixels, repairs = _rgb(_decode(attempt, space, least), profile)
            return pixels, [*repair, *repairs]
        except ValueError as error:
            words = words or " ".join(str(error).split())
    if _CUT.search(words) and "progressive" not in image.info and not data.endswith(_ZEROS):
        return _without_end(data, space, file, least, profile)
    if _DAMAGED.search(words):
        raise ImageError(file, f"truncated or corrupt: {words}")
    return None


def fraction(width: int, height: int, least: int) -> int:
    """Return 8, 4, 2 or 1: the largest divisor at which neither side is shorter than `least`; 1 where it is 0."""
    return next((by for by in (8, 4, 2) if least and min(-(-width // by), -(-height // by)) >= least), 1)


def cleaned(data: bytes) -> bytes:
    """Return a JPEG whose header holds only what its pixels and its orientation depend on, and no bytes in between."""
    segments = list(jpeg_segments(data))
    if not segments or segments[-1][0] != 0xDA:
        return data
    kept = [data[start - 4 : end] for marker, start, end in segments if _is_needed(marker, data[start:end])]
    return b"".join((data[:2], *kept, data[segments[-1][2] :]))


def _is_needed(marker: int, body: bytes) -> bool:
    beginning, least = _APPLICATION.get(marker, (b"", 0))
    return marker in _HEADER or (marker in _APPLICATION and body.startswith(beginning) and len(body) >= least)


def _attempts(data: bytes) -> Iterator[tuple[list[str], bytes]]:
    """Yield the file; without what damages its header, if anything does; and without padding before its end."""
    yield [], data
    clean = cleaned(data)
    if clean != data:
        yield ["damaged JPEG header segments ignored"], clean
    end = clean.rfind(_END)
    padding = len(clean[:end]) - len(clean[:end].rstrip(clean[end - 1 : end])) if end > 0 else 0
    if padding:
        yield ["padding before the end of the JPEG ignored"], clean[: end - padding] + _END


def _decode(data: bytes, space: str, least: int) -> Pixels:
    smallest = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
    pixels: Pixels = simplejpeg.decode_jpeg(data, space, strict=True, **smallest)
    return pixels


def _without_end(data: bytes, space: str, file: str, least: int, profile: bytes | None) -> Repaired:
    try:
        pixels, repairs = _rgb(_decode(data + _END, space, least), profile)
    except ValueError as error:
        raise ImageError(file, "truncated or corrupt: the file ends before the image does") from error
    return pixels, ["missing end marker added", *repairs]


def _rgb(pixels: Pixels, profile: bytes | None) -> Repaired:
    if pixels.shape[2] == 3:
        return pixels_to_srgb(pixels, profile)
    repairs: list[str] = []

    def converted(rows: slice) -> Pixels:
        inks = np.subtract(255, pixels[rows])
        image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
        rgb, repairs[:] = inks_to_rgb(image, profile)
        return rgb

    return by_strips(pixels.shape[0], pixels.shape[1], converted), repairs
