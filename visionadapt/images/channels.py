"""Input channels: convert any Pillow mode and any array to RGB, grey or chosen bands (palettes, alpha, depth, …)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.depth import Declared, GivenRange, to_uint8
from visionadapt.images.strips import by_strips, over, rows_of, strips, to_array

Colour = tuple[int, int, int]
ProfileUse = Literal["convert", "ignore"]
Pixels = npt.NDArray[np.uint8]
Repaired = tuple[Pixels, list[str]]
"""Pixels [H, W, 3], or chosen bands, and what was repaired to obtain them, one phrase each."""


class Conversion(NamedTuple):
    """How samples become RGB; the fields are those of `DecodeAdapter`."""

    background: Colour = (255, 255, 255)
    max_pixels: int = 178_956_970
    sample_range: GivenRange = None
    bands: tuple[int, ...] | None = None
    icc: ProfileUse = "convert"
    channels: int = 3

    @property
    def converts(self) -> bool:
        """Whether colour profiles are applied: not where bands are chosen, which need not be colours."""
        return self.icc == "convert" and self.bands is None


_COLOUR_SPACES = {"CMYK", "YCbCr", "LAB", "HSV"}
_GREY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}
_PHOTOMETRIC = 262
"""The TIFF tag that is 0 where 0 is white, which Pillow heeds up to 8 bits."""
_SCALED_BY_PILLOW = ("PPM", "JPEG2000")
"""Formats whose integers Pillow scales to 16 bits by what their header says."""


def raw_mode(image: Image.Image) -> str:
    """Return how the file stores its samples (`L;4`, `RGB;16B`) where the image is not loaded yet; else the mode."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else image.mode


def image_to_rgb(image: Image.Image, to: Conversion, raw: str, file: str) -> Repaired:
    """Convert a loaded Pillow image of any mode to uint8 [H, W, 3], and list what was repaired.

    Raises:
        ImageError: its values are no brightness (NaN), or it lacks one of the bands.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image, to, file)
    if to.bands is None:
        return _shallow_to_rgb(image, to.background, raw)
    if image.mode == "RGBA" and max(to.bands) > 3:
        return chosen_bands(to_array(image), to, file), []
    pixels, repairs = _shallow_to_rgb(image, to.background, raw)
    grey = image.mode in ("1", "L", "LA", "La")
    return chosen_bands(pixels[:, :, :1] if grey else pixels, to, file), repairs


def array_to_rgb(
    values: npt.NDArray[Any], to: Conversion, file: str, declared: Declared | None = None, alpha: bool = True
) -> Repaired:
    """Convert an array [H, W] or [H, W, C] of any number type to uint8 [H, W, 3], and list what was repaired.

    1 to 4 channels are grey, grey and alpha, RGB, RGB and alpha; where bands are chosen, C may be any number.

    Args:
        values: the samples.
        to: background, range and bands.
        file: what errors call it.
        declared: what the file says about the range.
        alpha: whether a second or fourth channel may be transparency.

    Raises:
        ImageError: another shape, an empty image, or values that are no brightness.
    """
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.size == 0:
        raise ImageError(file, f"has shape {values.shape}; an image has height, width and 1 to 4 channels")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if to.bands is not None:
        pixels, scaled = to_uint8(chosen_bands(values, to, file), file, declared, to.sample_range)
        return pixels, [scaled] if scaled else []
    channels = values.shape[2]
    if channels not in ((1, 2, 3, 4) if alpha else (1, 3)):
        reason = f"an image has 1 to 4 channels; choose three with {_EXAMPLE}"
        raise ImageError(file, f"has shape {values.shape}, {channels} bands of {values.dtype}: {reason}")
    colours = channels - (channels in (2, 4))
    pixels, scaled = to_uint8(values[:, :, :colours], file, declared, to.sample_range)
    repairs = [scaled] if scaled else []
    colour = pixels if colours == 3 else np.repeat(pixels, 3, axis=2)
    if channels > colours:
        opacity = to_uint8(values[:, :, -1], file, declared, None if to.sample_range == "declared" else to.sample_range)
        own = colour if scaled or colours == 1 else None
        colour, composited = _composite(colour, opacity[0], to.background, own)
        repairs += composited
    return colour, repairs


_EXAMPLE = "bands=(3, 2, 1), their numbers from 1 in the order red, green, blue"


def chosen_bands(values: npt.NDArray[Any], to: Conversion, file: str) -> npt.NDArray[Any]:
    """Return some bands of samples [H, W, C] by their numbers, from 1: [H, W, channels], one band repeated.

    Raises:
        ImageError: there is no such band.
    """
    bands = to.bands or ()
    if max(bands) > values.shape[2]:
        count = "1 band" if values.shape[2] == 1 else f"{values.shape[2]} bands"
        raise ImageError(file, f"has {count}, and bands={bands} names number {max(bands)}")
    chosen = values[:, :, [band - 1 for band in bands]]
    return chosen if len(bands) == to.channels else np.repeat(chosen, to.channels, axis=2)


def in_channels(pixels: Pixels, to: Conversion) -> Pixels:
    """Return RGB pixels [H, W, 3] as luma [H, W, 1] where one channel is wanted and no band was chosen.

    Grey stays as it is; colours are weighted as in Pillow's mode L (ITU-R BT.601).
    """
    if to.channels != 1 or to.bands is not None:
        return pixels

    def luma(part: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(np.ascontiguousarray(part)).convert("L"))[:, :, None]

    return np.ascontiguousarray(over(pixels, luma))


def _shallow_to_rgb(image: Image.Image, background: Colour, raw: str) -> Repaired:
    """Convert an image whose samples have 8 bits in Pillow."""
    if image.mode in _COLOUR_SPACES:
        return to_array(image, "RGB"), [f"{image.mode} converted to RGB"]
    if image.mode in ("1", "L") and image.format == "PNG" and "transparency" in image.info:
        return _keyed_grey_to_rgb(image, background, raw)
    if image.has_transparency_data:
        return _transparent_to_rgb(image, background, raw)
    return to_array(image, "RGB"), []


def _deep_to_rgb(image: Image.Image, to: Conversion, file: str) -> Repaired:
    values = to_array(image)
    scaled = image.format in _SCALED_BY_PILLOW and image.mode != "F"
    stored = values.astype(np.uint16) if scaled else values
    pixels, repairs = array_to_rgb(stored, to, file, Declared(0, 65535) if scaled else None)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        pixels = over(pixels, lambda part: 255 - part)
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels, composited = _composite(pixels, _opaque(values != key), to.background)
        repairs += composited
    return pixels, repairs


def _keyed_grey_to_rgb(image: Image.Image, background: Colour, raw: str) -> Repaired:
    """Convert a grey PNG with one transparent value, which is in the file's own depth; Pillow has scaled the pixels."""
    grey = to_array(image, "L")
    key = min(image.info["transparency"] * _GREY_SCALES.get(raw, 1), 255)
    return _composite(np.repeat(grey[:, :, None], 3, axis=2), _opaque(grey != key), background)


def _transparent_to_rgb(image: Image.Image, background: Colour, raw: str) -> Repaired:
    if image.mode == "La":
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and raw.startswith("RGB;16") and isinstance(key, tuple):
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    composited: list[str] = []

    def converted(rows: slice) -> Pixels:
        pixels = np.asarray(rows_of(image, rows).convert("RGBA"))
        colour, repairs = _composite(pixels[:, :, :3], pixels[:, :, 3], background)
        composited[:] = composited or repairs
        return colour

    return by_strips(image.height, image.width, converted), composited


def _opaque(mask: npt.NDArray[Any]) -> Pixels:
    return mask.astype(np.uint8) * np.uint8(255)


def _composite(colour: Pixels, alpha: Pixels, background: Colour, out: Pixels | None = None) -> Repaired:
    """Compute round((colour·alpha + background·(255 − alpha)) / 255), and name it; no change where all is opaque.

    The result goes into `out`, which may be `colour`, or into a new array.
    """
    if alpha.min() == 255:
        return colour, []

    def mixed(rows: slice) -> Pixels:
        weight = alpha[rows, :, None].astype(np.uint16)  # 255² + 127 fits, and is much faster than in 32 bits
        sums = colour[rows] * weight
        sums += np.array(background, dtype=np.uint16) * (255 - weight)
        sums += 127
        sums //= 255
        return sums.astype(np.uint8)

    name = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(background, str(background))
    if out is None:
        out = np.empty_like(colour)
    for rows in strips(len(alpha), colour[0].size):
        out[rows] = mixed(rows)
    return out, [f"transparency composited on {name}"]
