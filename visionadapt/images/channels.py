"""Input channels: convert any Pillow mode and any array to three, RGB (colour spaces, palettes, alpha, depth)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.depth import to_uint8

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]
Repaired = tuple[Pixels, list[str]]
"""Pixels [H, W, 3], and what was repaired to obtain them, one phrase each."""

_COLOUR_SPACES = {"CMYK", "YCbCr", "LAB", "HSV"}
_GREY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}


def raw_mode(image: Image.Image) -> str:
    """Return how the file stores its samples (`L;4`, `RGB;16B`) where the image is not loaded yet; else the mode."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else image.mode


def image_to_rgb(image: Image.Image, background: Colour, raw: str, file: str) -> Repaired:
    """Convert a loaded Pillow image of any mode to uint8 [H, W, 3], and list what was repaired.

    Raises:
        ImageError: its values are no brightness (NaN).
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image, background, file)
    if image.mode in _COLOUR_SPACES:
        return np.asarray(image.convert("RGB")), [f"{image.mode} converted to RGB"]
    if image.mode in ("1", "L") and image.format == "PNG" and "transparency" in image.info:
        return _keyed_grey_to_rgb(image, background, raw)
    if image.has_transparency_data:
        return _transparent_to_rgb(image, background, raw)
    return np.asarray(image.convert("RGB")), []


def array_to_rgb(values: npt.NDArray[Any], background: Colour, file: str) -> Repaired:
    """Convert an array [H, W] or [H, W, C] of any number type to uint8 [H, W, 3], and list what was repaired.

    1 to 4 channels are grey, grey and alpha, RGB, RGB and alpha.

    Raises:
        ImageError: another shape, an empty image, or values that are no brightness.
    """
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or values.size == 0:
        raise ImageError(file, f"has shape {values.shape}; an image has height, width and 1 to 4 channels")
    pixels, scaled = to_uint8(values, file)
    repairs = [scaled] if scaled else []
    channels = pixels.shape[2]
    colour = pixels if channels == 3 else pixels[:, :, :3] if channels == 4 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if channels in (2, 4):
        colour, composited = _composite(colour, pixels[:, :, -1], background)
        repairs += composited
    return colour, repairs


def _deep_to_rgb(image: Image.Image, background: Colour, file: str) -> Repaired:
    values = np.asarray(image)
    pixels, repairs = array_to_rgb(values.astype(values.dtype.newbyteorder("=")), background, file)
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels, composited = _composite(pixels, _opaque(values != key), background)
        repairs += composited
    return pixels, repairs


def _keyed_grey_to_rgb(image: Image.Image, background: Colour, raw: str) -> Repaired:
    """Convert a grey PNG with one transparent value, which is in the file's own depth; Pillow has scaled the pixels."""
    grey = np.asarray(image.convert("L"))
    key = min(image.info["transparency"] * _GREY_SCALES.get(raw, 1), 255)
    return _composite(np.repeat(grey[:, :, None], 3, axis=2), _opaque(grey != key), background)


def _transparent_to_rgb(image: Image.Image, background: Colour, raw: str) -> Repaired:
    if image.mode == "La":
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and raw.startswith("RGB;16") and isinstance(key, tuple):
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    pixels = np.asarray(image.convert("RGBA"))
    return _composite(pixels[:, :, :3], pixels[:, :, 3], background)


def _opaque(mask: npt.NDArray[Any]) -> Pixels:
    return mask.astype(np.uint8) * np.uint8(255)


def _composite(colour: Pixels, alpha: Pixels, background: Colour) -> Repaired:
    """Compute round((colour·alpha + background·(255 − alpha)) / 255), and name it; no change where all is opaque."""
    if alpha.min() == 255:
        return colour, []
    weight = alpha[:, :, None].astype(np.uint32)
    mixed = colour * weight + np.array(background, dtype=np.uint32) * (255 - weight)
    name = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(background, str(background))
    return ((mixed + 127) // 255).astype(np.uint8), [f"transparency composited on {name}"]
