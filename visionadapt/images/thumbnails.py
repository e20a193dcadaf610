"""JPEG thumbnails as data URIs, for HTML pages that need no other file."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

SIDE = 160
MOST_BYTES = 7_500
"""Bytes of a thumbnail: a page of thirty-two stays below 400 KB."""
_QUALITIES = (82, 72, 60, 45)


class Thumbnail(NamedTuple):
    """A `data:` URI of an image, and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(image: Image.Image | Tensor, side: int) -> Thumbnail:
    """Scale a PIL image or uint8 tensor [C, H, W] down to at most `side` × `side` pixels, and encode it as JPEG.

    Images with much detail are encoded in lower quality, to take no more than about `MOST_BYTES`.
    """
    if isinstance(image, Tensor):
        image = visible(image)
    image.thumbnail((side, side))
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(uri, image.width, image.height)


def visible(image: Tensor) -> Image.Image:
    """Return a uint8 tensor [C, H, W] as an RGB image: its first three channels, or the first one in grey."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return Image.fromarray(np.ascontiguousarray(shown.permute(1, 2, 0).numpy()))


class Thumbnails:
    """Make a thumbnail of a row on request, and cache it.

    Args:
        manifest: the rows.
        decode: reads their files.
    """

    def __init__(self, manifest: Manifest, decode: DecodeAdapter) -> None:
        self._manifest = manifest
        self._decode = decode
        self._made: dict[int, str] = {}

    def of(self, index: int) -> str:
        """Return a `data:` URI of the upright image, at most 160 × 160 pixels; empty where it cannot be read."""
        if index < 0:
            return ""
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def _make(self, index: int) -> str:
        record = self._manifest[index]
        if record.problem is not None:
            return ""
        try:
            pixels = self._decode.decode(self._manifest.source.read(record), record.key).pixels
        except ImageError:
            return ""
        return thumbnail(pixels, SIDE).uri
