"""JPEG by simplejpeg: the same bits as Pillow's decode, quicker, and strict where Pillow returns a half picture."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from visionadapt.errors import ImageError

_LOST_NOTHING = re.compile(r"extraneous bytes before marker 0xd9")
_LOST = re.compile(r"Corrupt JPEG data|Premature end", re.IGNORECASE)
_CUT = re.compile(r"Premature end of JPEG file", re.IGNORECASE)
_END = b"\xff\xd9"


def decode_jpeg(
    data: bytes, image: Image.Image, file: str, least: int = 0
) -> tuple[npt.NDArray[np.uint8], list[str]] | None:
    """Pixels [H, W, 3] of a JPEG that `image` is opened from, not yet turned, and what was repaired.

    None where simplejpeg does not read it though nothing is lost: Pillow has to. A baseline JPEG that lacks only its
    end marker is read. CMYK is taken as Adobe stores it, inverted, like Pillow does.

    With `least` pixels given, the picture comes at the smallest of its sizes ×1, ×½, ×¼, ×⅛ of which neither side is
    shorter.

    Raises:
        ImageError: parts of the picture are lost.
    """
    space = "CMYK" if image.mode == "CMYK" else "RGB"
    try:
        return _rgb(_decode(data, space, least))
    except ValueError as error:
        words = " ".join(str(error).split())
    if _CUT.search(words) and "progressive" not in image.info:
        return _without_end(data, space, file, least)
    if _LOST.search(words) and not _LOST_NOTHING.search(words):
        raise ImageError(file, f"truncated or corrupt: {words}")
    return None


def _decode(data: bytes, space: str, least: int) -> npt.NDArray[np.uint8]:
    smallest = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space, strict=True, **smallest)
    return pixels


def _without_end(data: bytes, space: str, file: str, least: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    try:
        pixels, repairs = _rgb(_decode(data + _END, space, least))
    except ValueError as error:
        raise ImageError(file, "truncated or corrupt: the file ends before the picture does") from error
    return pixels, ["missing end marker added", *repairs]


def _rgb(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    if pixels.shape[2] == 3:
        return pixels, []
    inks = Image.frombytes("CMYK", (pixels.shape[1], pixels.shape[0]), np.subtract(255, pixels).tobytes())
    return np.asarray(inks.convert("RGB")), ["CMYK converted to RGB"]
