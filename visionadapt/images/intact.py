"""Whether a file is whole, where Pillow would return a half picture without a word."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from visionadapt.errors import ImageError

_HARMLESS_JPEG = re.compile(
    r"extraneous bytes before marker 0xd9|unknown Adobe color transform|unknown JFIF revision|"
    r"Inconsistent progression sequence",
    re.IGNORECASE,
)
_PREMATURE_END = re.compile("premature end of JPEG file", re.IGNORECASE)


def check(data: bytes, image: Image.Image, file: str) -> list[str]:
    """Refuse a file whose checksums are wrong.

    Raises:
        ImageError: a PNG chunk that matters is cut off or does not match its checksum.
    """
    if image.format == "PNG":
        _check_png(data, file)
    return []


def decode_jpeg(data: bytes, mode: str, file: str) -> npt.NDArray[np.uint8] | None:
    """A JPEG's pixels as uint8 [H, W, 3], the same bits as Pillow's; None where Pillow has to read it.

    Raises:
        ImageError: the decoder warned of lost data, of which Pillow says nothing.
    """
    try:
        pixels = simplejpeg.decode_jpeg(data, "CMYK" if mode == "CMYK" else "RGB", strict=True)
    except ValueError as error:
        words = " ".join(str(error).split())
        if "Corrupt JPEG data" in words and not _HARMLESS_JPEG.search(words):
            raise ImageError(file, f"truncated or corrupt: {words}") from error
        return None
    return None if mode == "CMYK" else pixels


def _check_png(data: bytes, file: str) -> None:
    for name, body, checksum in _png_chunks(data):
        critical = name[:1].isupper()
        if critical and (len(checksum) < 4 or zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big")):
            raise ImageError(file, f"truncated or corrupt: PNG chunk {name.decode('latin-1')} fails its checksum")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bytes]]:
    """Name, body and checksum of every chunk, the last one perhaps cut short."""
    view, at = memoryview(data), 8
    while at + 8 <= len(data):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        yield name, view[at + 8 : end], bytes(view[end : end + 4])
        if name == b"IEND":
            return
        at = end + 4
