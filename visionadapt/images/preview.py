"""`preview`: the image after each step of a preprocessing, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from visionadapt.images.compose import Preprocessing
from visionadapt.images.normalize import NormalizeAdapter

_CAPTION = 34
_GAP = 12


def preview(prepare: Preprocessing, image: Any, height: int = 224) -> Image.Image:
    """Draw an image after each step of `prepare` as one RGB image with captions (name; size; dtype).

    Args:
        prepare: the steps.
        image: path, bytes, PIL image, array or tensor.
        height: height in pixels that each panel is scaled to.

    Raises:
        ImageError: the image cannot be used.
    """
    panels = []
    value = image
    if not isinstance(image, str | Path | bytes):
        panels.append(_panel("given", value, None, height))
    for step in prepare.steps:
        if isinstance(step, NormalizeAdapter) and isinstance(value, Image.Image):
            value = np.asarray(value)
        value = step(value)
        panels.append(_panel(type(step).__name__, value, prepare.normalize, height))
    return _side_by_side(panels)


def _panel(name: str, value: Any, normalize: NormalizeAdapter | None, height: int) -> Image.Image:
    image = _shown(value, normalize)
    detail = f"{image.width} x {image.height}, {_kind(value)}"
    scaled = image.resize((max(1, min(round(image.width * height / image.height), 4 * height)), height))
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(scaled.width, *(int(draw.textlength(line)) + 1 for line in (name, detail)))
    panel = Image.new("RGB", (width, height + _CAPTION), "white")
    panel.paste(scaled, (0, _CAPTION))
    ImageDraw.Draw(panel).multiline_text((0, 2), f"{name}\n{detail}", fill="black")
    return panel


def _shown(value: Any, normalize: NormalizeAdapter | None) -> Image.Image:
    if isinstance(value, Image.Image):
        return value.convert("RGB")
    if normalize is not None and "float" in str(value.dtype):
        value = normalize.inverse(value)
    array = value if isinstance(value, np.ndarray) else value.permute(1, 2, 0).cpu().numpy()
    shown = array[:, :, :3] if array.shape[-1] >= 3 else array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")


def _kind(value: Any) -> str:
    return f"PIL {value.mode}" if isinstance(value, Image.Image) else str(value.dtype).removeprefix("torch.")


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    strip = Image.new("RGB", (width, max(panel.height for panel in panels)), "white")
    left = 0
    for panel in panels:
        strip.paste(panel, (left, 0))
        left += panel.width + _GAP
    return strip
