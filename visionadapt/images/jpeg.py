"""Decode JPEGs with simplejpeg: the same bits as Pillow, faster, and an error where Pillow returns part of an image."""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.channels import Pixels, Repaired

_HARMLESS = re.compile(r"extraneous bytes before marker 0xd9")
_DAMAGED = re.compile(r"Corrupt JPEG data|Premature end", re.IGNORECASE)
_CUT = re.compile(r"Premature end of JPEG file", re.IGNORECASE)
_END = b"\xff\xd9"


def decode_jpeg(data: bytes, image: Image.Image, file: str, least: int = 0) -> Repaired | None:
    """Decode a JPEG to uint8 [H, W, 3] as stored, before the EXIF orientation is applied, and list what was repaired.

    A baseline JPEG that lacks only its end marker is read. CMYK is read as Adobe stores it, inverted, as in Pillow.

    Args:
        data: the file's bytes.
        image: the Pillow image opened from them.
        file: what errors call it.
        least: above 0, decode at the smallest of the scales ×1, ×½, ×¼ and ×⅛ at which neither side is shorter than
            this many pixels.

    Returns:
        Pixels and repairs; None where simplejpeg fails on an undamaged file, which Pillow has to decode.

    Raises:
        ImageError: parts of the image are missing.
    """
    space = "CMYK" if image.mode == "CMYK" else "RGB"
    try:
        return _rgb(_decode(data, space, least))
    except ValueError as error:
        words = " ".join(str(error).split())
    if _CUT.search(words) and "progressive" not in image.info:
        return _without_end(data, space, file, least)
    if _DAMAGED.search(words) and not _HARMLESS.search(words):
        raise ImageError(file, f"truncated or corrupt: {words}")
    return None


def _decode(data: bytes, space: str, least: int) -> Pixels:
    smallest = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
    pixels: Pixels = simplejpeg.decode_jpeg(data, space, strict=True, **smallest)
    return pixels


def _without_end(data: bytes, space: str, file: str, least: int) -> Repaired:
    try:
        pixels, repairs = _rgb(_decode(data + _END, space, least))
    except ValueError as error:
        raise ImageError(file, "truncated or corrupt: the file ends before the image does") from error
    return pixels, ["missing end marker added", *repairs]


def _rgb(pixels: Pixels) -> Repaired:
    if pixels.shape[2] == 3:
        return pixels, []
    inks = Image.frombytes("CMYK", (pixels.shape[1], pixels.shape[0]), np.subtract(255, pixels).tobytes())
    return np.asarray(inks.convert("RGB")), ["CMYK converted to RGB"]
