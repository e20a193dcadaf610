"""Draw a confusion matrix."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

from visionadapt.tasks import ConfusionMatrix


def confusion_image(classes: Sequence[str], matrix: ConfusionMatrix) -> bytes:
    """Draw a confusion matrix as PNG; each row is coloured by its shares."""
    from matplotlib.figure import Figure

    side = min(max(4.0, 0.5 * len(classes) + 2), 40.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix.counts / matrix.support.clip(1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_shortened(name).replace("$", r"\$") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= 40:
        for row, line in enumerate(matrix.counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count) if count else "", ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box replaces it; the tables have the name
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _shortened(name: str) -> str:
    """Return a name of at most 40 characters, to leave room for the matrix."""
    return name if len(name) <= 40 else f"{name[:39]}…"
