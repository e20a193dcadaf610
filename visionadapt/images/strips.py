"""Convert images in strips of rows: what a conversion needs beside its input and its result has a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_SAMPLES = 2**22
"""Samples in a strip."""


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of an image [height, width] from the top, in strips of at most 4 M samples or one row."""
    rows = max(1, _SAMPLES // max(width, 1))
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def by_strips(height: int, width: int, convert: Callable[[slice], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return what `convert` makes of the rows of each strip, as one array; each pixel must depend on itself alone."""
    result: npt.NDArray[Any] | None = None
    for rows in strips(height, width):
        part = convert(rows)
        if len(part) == height:
            return part
        if result is None:
            result = np.empty((height, *part.shape[1:]), part.dtype)
        result[rows] = part
    return convert(slice(0, 0)) if result is None else result


def over(values: npt.NDArray[Any], convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return `convert(values)`, computed in strips of the first axis."""
    if not values.ndim or not values.size:
        return convert(values)
    return by_strips(len(values), values[0].size, lambda rows: convert(values[rows]))


def rows_of(image: Image.Image, rows: slice) -> Image.Image:
    """Return some rows of an image; the image itself where they are all."""
    if rows.stop - rows.start == image.height:
        return image
    return image.crop((0, rows.start, image.width, rows.stop))


def to_array(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """Return `np.asarray(image.convert(mode))`, computed in strips; without a mode, as it is."""
    return by_strips(
        image.height,
        image.width,
        lambda rows: np.asarray(
            rows_of(image, rows) if mode in (None, image.mode) else rows_of(image, rows).convert(mode)
        ),
    )
