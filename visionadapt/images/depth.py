"""Sample depth: scale brightness values of any dtype to uint8 by their true range, never saturated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visionadapt.errors import ImageError

_STANDARD_MAXIMA = (255, 65535, 2**31 - 1)


def to_uint8(values: npt.NDArray[Any], file: str = "array") -> tuple[npt.NDArray[np.uint8], str | None]:
    """Scale brightness values of any dtype and shape to uint8, and say how; None for uint8, which is returned as it is.

    - bool: False → 0, True → 255.
    - uint16: round(v / 257), so that 0 → 0 and 65535 → 255.
    - other integers: by the smallest depth of 8, 16 and 32 bits (255, 65535, 2³¹ − 1) that holds all values;
      negative or larger ones from minimum–maximum.
    - floats: [0, 1] → round(255·v); anything else from minimum–maximum, a constant image to 0.

    Raises:
        ImageError: a float is NaN or infinite, or the dtype holds no brightness (complex, object, text).
    """
    if values.dtype == np.uint8:
        return values, None
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), "scaled 1-bit to 8-bit"
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8), "scaled 16-bit to 8-bit"
    if values.dtype.kind in "iu":
        return _integers(values)
    if values.dtype.kind == "f":
        return _floats(values, file)
    raise ImageError(file, f"holds {values.dtype} values, not brightness; pass integers, floats or booleans")


def _integers(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], str]:
    low, high = int(values.min()), int(values.max())
    for maximum in _STANDARD_MAXIMA:
        if low >= 0 and high <= maximum:
            depth = {255: "8-bit", 65535: "16-bit", 2**31 - 1: "32-bit"}[maximum]
            return _stretch(values, 0, maximum), f"scaled integers in the {depth} range to 8-bit"
    return _stretch(values, low, high), f"scaled integers from {low}…{high} to 8-bit"


def _floats(values: npt.NDArray[Any], file: str) -> tuple[npt.NDArray[np.uint8], str]:
    if not np.isfinite(values).all():
        raise ImageError(file, "holds NaN or infinite values; replace them before use")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return _stretch(values, 0, 1), "scaled floats from 0…1 to 8-bit"
    return _stretch(values, low, high), f"scaled floats from {low:.4g}…{high:.4g} to 8-bit"


def _stretch(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """round(255·(v − low) / (high − low)) in float64; 0 everywhere where low equals high."""
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2)
    return np.floor(scaled * 255 + 0.5).clip(0, 255).astype(np.uint8)
