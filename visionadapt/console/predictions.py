"""Predictions as lines for people, and as events for programs."""

from __future__ import annotations

from typing import Any

from visionadapt.prediction.prediction import Prediction

DECIMALS = 4
"""Of numbers on standard output."""


def line_of(row: Prediction, top: int = 1) -> str:
    """Return a prediction as a line: the file, its `top` most probable classes, whether it abstains, and is unusual.

    An image that may have several classes shows those whose probabilities reach their thresholds, unless `top` > 1.
    """
    if row.problem is not None:
        return f"{row.file}  rejected: {row.problem}"
    pairs = row.top(top)
    if top == 1 and row.labels != (row.label,):
        named = dict(zip(row.classes, row.probabilities, strict=True))
        pairs = [(name, named[name]) for name in row.labels]
    classes = [f"{name}  {100 * probability:.1f} %" for name, probability in pairs] or ["no class"]
    notes = [*(["abstains"] if row.abstain else []), *(["unlike the training images"] if row.odd else [])]
    return "  ".join([row.file, *classes, *notes])


def event_of(row: Prediction) -> dict[str, Any]:
    """Return a prediction as plain data, numbers with four decimals; what does not exist is None."""
    used = row.problem is None
    return {
        "file": row.file,
        "label": row.label,
        "labels": list(row.labels) if used else None,
        "probability": round(row.probability, DECIMALS) if used else None,
        "abstain": row.abstain if used else None,
        "distance": round(row.distance, DECIMALS) if used and row.distance == row.distance else None,
        "problem": row.problem,
        "probabilities": {
            name: round(probability, DECIMALS)
            for name, probability in zip(row.classes if used else (), row.probabilities, strict=True)
        },
    }
