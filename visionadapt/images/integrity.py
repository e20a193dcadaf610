"""Detect damaged PNG and TIFF files, which Pillow would decode in part without an error."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import Image

from visionadapt.errors import ImageError

_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")


def check_complete(data: bytes, image: Image.Image, file: str) -> None:
    """Refuse a file that is damaged, as far as that shows before it is decoded.

    Raises:
        ImageError: a PNG chunk that holds pixels is cut off or fails its checksum; the strips or tiles of a TIFF do
            not cover the image.
    """
    if image.format == "PNG":
        _check_png(data, file)
    if image.format == "TIFF":
        _check_tiff(image, file)


def _check_png(data: bytes, file: str) -> None:
    for name, body, checksum in _png_chunks(data):
        if name not in _PNG_PIXELS:
            continue
        if len(checksum) < 4 or zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise ImageError(file, f"truncated or corrupt: PNG chunk {name.decode('latin-1')} fails its checksum")


def _check_tiff(image: Image.Image, file: str) -> None:
    extents = {tile[1] for tile in getattr(image, "tile", [])}
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    if covered < image.width * image.height:
        raise ImageError(file, f"truncated or corrupt: its strips do not fill {image.width}×{image.height} pixels")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bytes]]:
    """Yield name, body and checksum of every chunk; the last one may be cut short."""
    view, at = memoryview(data), 8
    while at + 8 <= len(data):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        yield name, view[at + 8 : end], bytes(view[end : end + 4])
        if name == b"IEND":
            return
        at = end + 4
