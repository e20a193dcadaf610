"""Files of every kind that is read and that Pillow writes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from tests.images.samples import AVIF, file_of

HEIF = find_spec("pillow_heif") is not None

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with restarts": ("JPEG", {"restart_marker_rows": 1}),
    "grey jpeg": ("JPEG", {"mode": "L"}),
    "cmyk jpeg": ("JPEG", {"mode": "CMYK"}),
    "png": ("PNG", {}),
    "palette png": ("PNG", {"mode": "P"}),
    "transparent png": ("PNG", {"mode": "RGBA"}),
    "16-bit png": ("PNG", {"mode": "I;16"}),
    "bilevel png": ("PNG", {"mode": "1"}),
    "gif": ("GIF", {"mode": "P"}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "transparent webp": ("WEBP", {"mode": "RGBA"}),
    "tiff": ("TIFF", {}),
    "tiff in strips": ("TIFF", {"compression": "tiff_lzw", "strip_size": 1000}),
    "packbits tiff": ("TIFF", {"compression": "packbits"}),
    "deflate tiff": ("TIFF", {"compression": "tiff_deflate"}),
    "jpeg tiff": ("TIFF", {"compression": "jpeg"}),
    "zstandard tiff": ("TIFF", {"compression": "zstd"}),
    "lzma tiff": ("TIFF", {"compression": "lzma"}),
    "16-bit tiff": ("TIFF", {"mode": "I;16"}),
    "cmyk tiff": ("TIFF", {"mode": "CMYK", "compression": "tiff_lzw"}),
    "big tiff": ("TIFF", {"big_tiff": True}),
    "fax tiff": ("TIFF", {"mode": "1", "compression": "group4"}),
    "bmp": ("BMP", {}),
    "palette bmp": ("BMP", {"mode": "P"}),
    "dib": ("DIB", {}),
    "tga": ("TGA", {}),
    "rle tga": ("TGA", {"compression": "tga_rle"}),
    "palette tga": ("TGA", {"mode": "P"}),
    "ppm": ("PPM", {}),
    "pgm": ("PPM", {"mode": "L"}),
    "pfm": ("PPM", {"mode": "F"}),
    "pbm": ("PPM", {"mode": "1"}),
    "jpeg 2000": ("JPEG2000", {}),
    "j2k": ("JPEG2000", {"no_jp2": True}),
    "tiled jpeg 2000": ("JPEG2000", {"tile_size": (32, 32)}),
    **({"avif": ("AVIF", {})} if AVIF else {}),
    **({"heic": ("HEIF", {})} if HEIF else {}),
    "ico": ("ICO", {}),
    "bitmap ico": ("ICO", {"bitmap_format": "bmp"}),
    "qoi": ("QOI", {}),
    "dds": ("DDS", {}),
    "compressed dds": ("DDS", {"pixel_format": "DXT1"}),
    "sgi": ("SGI", {}),
    "pcx": ("PCX", {}),
    "palette pcx": ("PCX", {"mode": "P"}),
    "msp": ("MSP", {"mode": "1"}),
    "xbm": ("XBM", {"mode": "1"}),
    "spider": ("SPIDER", {"mode": "F"}),
    "blp": ("BLP", {"mode": "P"}),
}
"""Pillow's format of each kind, and the options to save it with; `mode` is that of the image."""


def written(image: Image.Image, name: str, **more: Any) -> bytes:
    """An RGB image as a file of a kind."""
    kind, options = KINDS[name]
    options = {**options, **more}
    mode = options.pop("mode", "RGB")
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    if mode == "I;16":
        return file_of(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), kind, **options)
    return file_of(image.convert(mode), kind, **options)
