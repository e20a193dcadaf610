"""Checks of settings that several image adapters share."""

from __future__ import annotations

from visionadapt.errors import SpecError


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
