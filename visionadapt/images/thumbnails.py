"""Small JPEG pictures of rows as data URIs, for a page that needs no other file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

SIDE = 160


class Thumbnails:
    """Makes and remembers a thumbnail of each row that is asked for.

    Args:
        manifest: the rows.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._decode = DecodeAdapter()
        self._made: dict[int, str] = {}

    def of(self, index: int) -> str:
        """A `data:` URI of the upright picture, at most 160 pixels high and wide; empty where it cannot be had."""
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
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
