"""Convert images from the colour profile in their file (ICC.1) to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from visionadapt.images.channels import Pixels, Repaired
from visionadapt.images.strips import by_strips, over, rows_of, to_array

_CONVERTED = ["colours converted to sRGB by their profile"]
_IGNORED = ["broken or unfitting colour profile ignored"]
_NEARLY_EQUAL = 2
"""Levels of 255 by which a profile's colours may differ from sRGB and still be sRGB: published copies of it do."""

_KINDS = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class _Conversion(NamedTuple):
    """How a profile is applied: to which mode, and by which transform; no transform where it is sRGB."""

    mode: str
    transform: ImageCms.ImageCmsTransform | None


def pixels_to_srgb(pixels: Pixels, profile: bytes | None) -> Repaired:
    """Convert RGB pixels [H, W, 3] from an RGB profile, or equal channels from a grey one, to sRGB.

    Colours are converted relative to the white point with black point compensation; those outside sRGB are clipped. A
    profile that is broken or of another kind of colours is ignored, which is noted.
    """
    if not profile:
        return pixels, []
    conversion = _conversion(profile, "RGB")
    if conversion is None or conversion.mode == "CMYK":
        return pixels, _IGNORED[:]
    transform = conversion.transform
    if transform is None:
        return pixels, []
    if conversion.mode == "L":
        if not (np.array_equal(pixels[:, :, 0], pixels[:, :, 1]) and np.array_equal(pixels[:, :, 0], pixels[:, :, 2])):
            return pixels, _IGNORED[:]
        pixels = pixels[:, :, 0]
    return over(pixels, lambda part: _array_applied(transform, part)), _CONVERTED[:]


def transparent_to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """Convert an image in mode RGBA as `pixels_to_srgb` does; its alpha is kept."""
    conversion = _conversion(profile, "RGBA") if profile else None
    if conversion is None or conversion.mode != "RGBA":
        return image, _IGNORED[:] if profile else []
    if conversion.transform is None:
        return image, []
    return _applied(conversion.transform, image), _CONVERTED[:]


def inks_to_rgb(image: Image.Image, profile: bytes | None) -> Repaired:
    """Convert an image in mode CMYK to RGB, by its profile where it has a CMYK one, else by Pillow's formula."""
    conversion = _conversion(profile, "CMYK") if profile else None
    if conversion is not None and conversion.mode == "CMYK" and conversion.transform is not None:
        transform = conversion.transform
        pixels = by_strips(*image.size[::-1], lambda rows: np.asarray(_applied(transform, rows_of(image, rows))))
        return pixels, ["CMYK converted to RGB", *_CONVERTED]
    notes = _IGNORED if profile else []
    return to_array(image, "RGB"), ["CMYK converted to RGB", *notes]


@lru_cache(maxsize=32)
def _conversion(profile: bytes, mode: str) -> _Conversion | None:
    """Return how to apply a profile to an image in `RGB`, `RGBA` or `CMYK`; None where it cannot be applied."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        kind = _KINDS[source.profile.xcolor_space]
        given = "RGBA" if kind == "RGB" and mode == "RGBA" else kind
        output = "RGBA" if given == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            given,
            output,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return _Conversion(given, None if _is_srgb(transform, given) else transform)
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError, TypeError):
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves a grid of 9³ colours, or 256 greys, as they are."""
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(27, 27, 3)
    if mode == "L":
        colours = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    image = Image.fromarray(colours).convert(mode)
    converted = np.asarray(_applied(transform, image).convert("RGB"))
    return int(np.abs(converted.astype(int) - colours).max()) <= _NEARLY_EQUAL


def _array_applied(transform: ImageCms.ImageCmsTransform, pixels: Pixels) -> Pixels:
    return np.asarray(_applied(transform, Image.fromarray(np.ascontiguousarray(pixels))))


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted
