"""The augmentation presets `none`, `light` and `strong`, as pure functions of an image and a random generator."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

_SHORT_SIDE = 448
_GREY = 128.0


def _none(pixels: Tensor, generator: random.Random) -> Tensor:
    return pixels


def _light(pixels: Tensor, generator: random.Random) -> Tensor:
    return _flip(_random_crop(pixels, generator, (0.7, 1.0), 1.1), generator)


def _strong(pixels: Tensor, generator: random.Random) -> Tensor:
    crop = _flip(_random_crop(pixels, generator, (0.35, 1.0), 4 / 3), generator)
    channels = len(pixels)
    change = generator.choice(_CHANGES if channels in (1, 3) else _MOVES)
    strength = generator.uniform(-1, 1)
    if channels == 1:
        return change(_shrunk(crop).expand(3, -1, -1), strength)[:1]
    return change(_shrunk(crop), strength)


PRESETS: Mapping[str, Callable[[Tensor, random.Random], Tensor]] = {"none": _none, "light": _light, "strong": _strong}
"""Each maps uint8 [C, H, W] to uint8 [C, h, w]; the input is never changed in place."""


def _random_crop(pixels: Tensor, generator: random.Random, area: tuple[float, float], ratio: float) -> Tensor:
    """Return a view of a random crop: a share in `area` of the image, its aspect ratio changed by at most `ratio`×."""
    height, width = pixels.shape[-2:]
    share = generator.uniform(*area)
    stretch = math.exp(generator.uniform(-math.log(ratio), math.log(ratio)) / 2)
    crop_height = min(height, max(1, round(height * math.sqrt(share) * stretch)))
    crop_width = min(width, max(1, round(width * math.sqrt(share) / stretch)))
    top, left = generator.randint(0, height - crop_height), generator.randint(0, width - crop_width)
    return pixels[:, top : top + crop_height, left : left + crop_width]


def _flip(pixels: Tensor, generator: random.Random) -> Tensor:
    return pixels.flip(-1) if generator.random() < 0.5 else pixels


def _shrunk(pixels: Tensor) -> Tensor:
    """Scale the short side down to 448 pixels where it is longer, since the next step costs time per pixel."""
    short = min(pixels.shape[-2:])
    return functional.resize(pixels, [_SHORT_SIDE], antialias=True) if short > _SHORT_SIDE else pixels


def _affine(pixels: Tensor, angle: float = 0, shift: float = 0, shear: float = 0, across: bool = False) -> Tensor:
    height, width = pixels.shape[-2:]
    translate = [0, round(shift * height)] if across else [round(shift * width), 0]
    moved: Tensor = functional.affine(
        pixels,
        angle=angle,
        translate=translate,
        scale=1.0,
        shear=[0.0, shear] if across else [shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=[_GREY] * len(pixels),
    )
    return moved


_MOVES: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda pixels, strength: _affine(pixels, angle=30 * strength),
    lambda pixels, strength: _affine(pixels, shift=0.25 * strength),
    lambda pixels, strength: _affine(pixels, shift=0.25 * strength, across=True),
    lambda pixels, strength: _affine(pixels, shear=20 * strength),
    lambda pixels, strength: _affine(pixels, shear=20 * strength, across=True),
)
"""Changes of an image with any number of channels."""

_CHANGES: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda pixels, strength: pixels,
    lambda pixels, strength: functional.adjust_brightness(pixels, 1 + 0.6 * strength),
    lambda pixels, strength: functional.adjust_contrast(pixels, 1 + 0.6 * strength),
    lambda pixels, strength: functional.adjust_saturation(pixels, 1 + 0.9 * strength),
    lambda pixels, strength: functional.adjust_hue(pixels, 0.08 * strength),
    lambda pixels, strength: functional.adjust_sharpness(pixels, 1 + 0.9 * strength),
    lambda pixels, strength: functional.adjust_gamma(pixels, 2.0**strength),
    lambda pixels, strength: functional.posterize(pixels, 8 - round(4 * abs(strength))),
    lambda pixels, strength: functional.solarize(pixels, 255 - 127 * abs(strength)),
    lambda pixels, strength: functional.autocontrast(pixels),
    lambda pixels, strength: functional.equalize(pixels),
    lambda pixels, strength: functional.rgb_to_grayscale(pixels, num_output_channels=3),
    *_MOVES,
)
"""One is drawn per image; `strength` is uniform in [−1, 1]."""
