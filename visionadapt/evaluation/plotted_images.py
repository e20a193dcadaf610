"""Read the images that a plot shows, from the rows that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from visionadapt.errors import UsageError
from visionadapt.images import DecodeAdapter
from visionadapt.images.thumbnails import visible
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.text import utf8_safe


def images_of(rows: RowsLike, files: Sequence[str]) -> list[Image.Image]:
    """Return the images of some rows, whose keys are `files`, in this order.

    Raises:
        UsageError: the rows lack one of them.
        ImageError: one of them can no longer be read.
    """
    found, wanted, decode = manifest_of(rows), set(files), DecodeAdapter()
    records = {key: record for record in found if (key := utf8_safe(record.key)) in wanted}
    for file in files:
        if file not in records:
            raise UsageError(f"plot('losses'): the rows have no {file}; give those that were evaluated")
    return [visible(decode.decode(found.source.read(records[file]), file).pixels) for file in files]
