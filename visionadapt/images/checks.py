"""Checks of settings that several image adapters share."""

from __future__ import annotations

import math
from typing import Literal

from visionadapt.errors import SpecError


def is_finite(number: float) -> bool:
    """Return whether a number is finite as a float; an integer may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def checked_colour(adapter: str, field: str, colour: object) -> tuple[int, int, int]:
    """Return an RGB colour as three integers in 0–255; a single integer is a grey.

    Raises:
        SpecError: anything else.
    """
    values = (colour,) * 3 if isinstance(colour, int) else tuple(colour) if isinstance(colour, list | tuple) else ()
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise SpecError(f"{adapter}: {field} must be a grey 0–255 or three numbers 0–255, got {colour!r}")
    return values


def checked_count(adapter: str, field: str, value: object) -> int:
    """Return a positive integer.

    Raises:
        SpecError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"{adapter}: {field} must be an integer of at least 1, got {value!r}")
    return value


def checked_range(adapter: str, field: str, value: object) -> tuple[float, float] | Literal["declared"] | None:
    """Return a range of sample values as two numbers; `declared` and None are returned as they are.

    Raises:
        SpecError: anything else, or the first number is not below the second.
    """
    if value is None or value == "declared":
        return value
    ends = tuple(value) if isinstance(value, list | tuple) else ()
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and is_finite(end) for end in ends)
    if len(ends) != 2 or not numbers or not ends[0] < ends[1]:
        raise SpecError(f"{adapter}: {field} must be two numbers (low, high), or declared, got {value!r}")
    return ends


def checked_bands(adapter: str, field: str, value: object) -> tuple[int, ...] | None:
    """Return numbers of bands, from 1; None is returned as it is.

    Raises:
        SpecError: anything else.
    """
    if value is None:
        return None
    bands = tuple(value) if isinstance(value, list | tuple) else (value,)
    counted = all(isinstance(band, int) and not isinstance(band, bool) and 1 <= band <= 65535 for band in bands)
    if not bands or not counted:
        raise SpecError(f"{adapter}: {field} must be numbers of bands from 1, such as (3, 2, 1), got {value!r}")
    return bands
