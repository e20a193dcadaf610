"""Checks of settings that several adapter methods share."""

from __future__ import annotations

from visionadapt.errors import AdapterError


def require(condition: bool, message: str) -> None:
    """Raise AdapterError with the message unless the condition holds."""
    if not condition:
        raise AdapterError(message)


def require_counts(**values: int) -> None:
    """Raise AdapterError unless every value is at least 1."""
    for name, value in values.items():
        require(value >= 1, f"{name}={value} is too small; use 1 or more")


def require_rates(**values: float) -> None:
    """Raise AdapterError unless every value is in [0, 1)."""
    for name, value in values.items():
        require(0 <= value < 1, f"{name}={value} must be at least 0 and below 1")


def require_rows(rows: str) -> None:
    """Raise AdapterError unless `rows` is one or more of q, k and v."""
    require(bool(rows) and set(rows) <= set("qkv"), f"rows={rows!r} must be made of q, k and v")
