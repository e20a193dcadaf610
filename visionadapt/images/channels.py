"""Any mode of a loaded Pillow image, and any array, → uint8 RGB: colour spaces, palettes, transparency, depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.depth import to_uint8

Array = npt.NDArray[Any]
_COLOUR_SPACES = {"CMYK", "YCbCr", "LAB", "HSV"}
_GREY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}


def raw_mode(image: Image.Image) -> str:
    """How the file stores its samples (`L;4`, `RGB;16B`), known only before the image is loaded; else the mode."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else image.mode


def image_to_rgb(
    image: Image.Image, background: tuple[int, int, int], raw: str, file: str
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """A loaded image as uint8 [H, W, 3] and what was repaired on the way.

    Raises:
        ImageError: values that are no brightness (NaN).
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


def array_to_rgb(values: Array, background: tuple[int, int, int], file: str) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """An array [H, W] or [H, W, C] of any number type as uint8 [H, W, 3]; C of 1 to 4: grey, grey+alpha, RGB, RGBA.

    Raises:
        ImageError: another shape, an empty picture, or values that are no brightness.
    """
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or values.size == 0:
        raise ImageError(file, f"has shape {values.shape}; a picture has height, width and 1 to 4 channels")
    pixels, scaled = to_uint8(values, file)
    repairs = [scaled] if scaled else []
    channels = pixels.shape[2]
    colour = pixels if channels == 3 else pixels[:, :, :3] if channels == 4 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if channels in (2, 4):
        colour, laid = _lay_on(colour, pixels[:, :, -1], background)
        repairs += laid
    return colour, repairs


def _deep_to_rgb(
    image: Image.Image, background: tuple[int, int, int], file: str
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    values = np.asarray(image)
    pixels, repairs = array_to_rgb(values.astype(values.dtype.newbyteorder("=")), background, file)
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels, laid = _lay_on(pixels, _opaque(values != key), background)
        repairs += laid
    return pixels, repairs


def _keyed_grey_to_rgb(
    image: Image.Image, background: tuple[int, int, int], raw: str
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Grey PNG with one transparent value, given in the file's own depth; Pillow has spread the pixels to 0–255."""
    grey = np.asarray(image.convert("L"))
    key = min(image.info["transparency"] * _GREY_SCALES.get(raw, 1), 255)
    return _lay_on(np.repeat(grey[:, :, None], 3, axis=2), _opaque(grey != key), background)


def _transparent_to_rgb(
    image: Image.Image, background: tuple[int, int, int], raw: str
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    if image.mode == "La":
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and raw.startswith("RGB;16") and isinstance(key, tuple):
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    pixels = np.asarray(image.convert("RGBA"))
    return _lay_on(pixels[:, :, :3], pixels[:, :, 3], background)


def _opaque(mask: Array) -> npt.NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def _lay_on(
    colour: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], background: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """round((colour·alpha + background·(255 − alpha)) / 255), and its name; the colour itself where all is opaque."""
    if alpha.min() == 255:
        return colour, []
    weight = alpha[:, :, None].astype(np.uint32)
    mixed = colour * weight + np.array(background, dtype=np.uint32) * (255 - weight)
    name = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(background, str(background))
    return ((mixed + 127) // 255).astype(np.uint8), [f"transparency laid on {name}"]
