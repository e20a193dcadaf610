"""A matplotlib figure that a notebook shows by itself; imports matplotlib, so it is imported on first use only."""

from __future__ import annotations

import io
import warnings

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that needs no pyplot: a notebook shows others as pictures only once pyplot has drawn one."""

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows; letters that the font lacks are boxes."""
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            self.savefig(buffer, format="png", dpi=72, bbox_inches="tight")
        return buffer.getvalue()
