"""Metrics as people read them: their names in words, shares in per cent and losses as numbers."""

from __future__ import annotations

from visionadapt.system.text import percent


def words(name: str) -> str:
    """Return a metric's name in words: `val mean average precision`."""
    return name.replace("_", " ")


def value_of(name: str, value: float | None) -> str:
    """Format the value of a metric: a loss with four decimals, any other one, which is a share, in per cent.

    >>> value_of("val_loss", 0.25), value_of("val_accuracy", 0.91667), value_of("accuracy", None)
    ('0.2500', '91.7 %', '–')
    """
    if value is None or value != value:
        return "–"
    return f"{value:.4f}" if name.endswith("loss") else percent(value)
