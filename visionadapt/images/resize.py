"""`ResizeAdapter`: any height × width → one size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from visionadapt.errors import SpecError
from visionadapt.images.checks import checked_colour, checked_count
from visionadapt.images.input_types import Picture, on_tensor

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform

Policy = Literal["crop", "squash", "letterbox"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]

_MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST_EXACT,
}
_LONGEST = 16


class Placement(NamedTuple):
    """Where the whole picture lies in the output, in output pixels; what is cropped off lies outside.

    A point (y, x) of the picture of height h comes to `top + y · height / h`, and back by the inverse; x likewise.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ResizeAdapter:
    """Bring a picture of any size to `size`, antialiased.

    Called with a PIL image, a uint8 array [H, W, C] or [N, H, W, C], or a uint8 tensor [C, H, W] or [N, C, H, W], it
    returns the same kind; all go through torchvision's uint8 kernel and agree bit for bit.

    - `crop`: the short side is scaled to floor(size / crop_pct), then the centre is cut out. What timm does by default.
      Of a picture more than 16 times as long as wide, only the middle 16 widths are scaled.
    - `squash`: both sides are scaled to floor(size / crop_pct), the aspect ratio is lost, then the centre is cut out.
      timm's crop mode `squash`.
    - `letterbox`: the long side is scaled to floor(size / crop_pct), the rest is filled with `fill`. timm's crop mode
      `border`, there with the mean as fill. Worked: 300 × 400 (height × width) at size 224: the scale is
      224 / 400 = 0.56, the picture 168 × 224, and (224 − 168) // 2 = 28 rows are filled above it and 28 below.

    Attributes:
        size: height and width of the output in pixels; one number for a square.
        policy: `crop`, `squash` or `letterbox`.
        crop_pct: how much of the scaled short (letterbox: long) side the output shows, in (0, 1].
        interpolation: `bicubic`, `bilinear` or `nearest` (without antialiasing; Pillow's but for ties).
        fill: RGB colour 0–255 of what the letterbox leaves free; a single number is a grey. Pictures of other than
            3 channels are filled with its first number.

    Raises:
        SpecError: a field is out of its range.
        UsageError: on a call, the picture is not uint8 or not of 3 or 4 axes.
    """

    size: int | tuple[int, int] = 224
    policy: Policy = "crop"
    crop_pct: float = 1.0
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (128, 128, 128)

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, list | tuple) else (self.size,)
        if len(sides) not in (1, 2):
            raise SpecError(f"ResizeAdapter: size must be one number or (height, width), got {self.size!r}")
        for side in sides:
            checked_count("ResizeAdapter", "size", side)
        object.__setattr__(self, "size", tuple(sides) if len(sides) == 2 else sides[0])
        _check_choice("policy", self.policy, get_args(Policy))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        if not isinstance(self.crop_pct, int | float) or not 0 < self.crop_pct <= 1:
            raise SpecError(f"ResizeAdapter: crop_pct must lie in (0, 1], got {self.crop_pct!r}")
        object.__setattr__(self, "fill", checked_colour("ResizeAdapter", "fill", self.fill))

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of the output in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def scaled_side(self) -> int:
        """The side, in pixels, that a picture is scaled to before anything is cut off: floor(size / crop_pct)."""
        return math.floor(max(self.height_width) / self.crop_pct)

    def __call__(self, picture: Picture) -> Picture:
        """The picture at `size`, in the kind it came in.

        Raises:
            UsageError: it is no uint8 picture of 3 or 4 axes.
        """
        return on_tensor(picture, self._resize)

    def placement(self, height: int, width: int) -> Placement:
        """Where a picture of `height` × `width` lies in the output; `ResizeAdapter(224, "letterbox")`: see `Placement`.

        `ResizeAdapter(224, policy="letterbox").placement(300, 400)` is (28, 0, 168, 224).
        """
        trimmed = self._trimmed(height, width)
        scaled = self._scaled(*trimmed)
        top, left = (_offset(inner, outer) for inner, outer in zip(scaled, self.height_width, strict=True))
        whole = [round(side * full / part) for side, full, part in zip(scaled, (height, width), trimmed, strict=True)]
        return Placement(top - (whole[0] - scaled[0]) // 2, left - (whole[1] - scaled[1]) // 2, *whole)

    def albumentations(self) -> ImageOnlyTransform:
        """This adapter as a transform for `albumentations.Compose`."""
        from visionadapt.images.albumentations_transform import as_albumentations

        return as_albumentations(self)

    def _resize(self, pixels: Tensor) -> Tensor:
        height, width = self._trimmed(pixels.shape[-2], pixels.shape[-1])
        pixels = _centre(pixels, height, width)
        scaled = _scale(pixels, self._scaled(height, width), _MODES[self.interpolation])
        return self._framed(scaled).contiguous()

    def _trimmed(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is scaled: of an extremely long picture under `crop`, its middle."""
        if self.policy != "crop":
            return height, width
        longest = min(height, width) * _LONGEST * math.ceil(max(self.height_width) / min(self.height_width))
        return _shortened(height, longest), _shortened(width, longest)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling, before cropping or filling; timm's and torchvision's own rounding."""
        target = tuple(math.floor(side / self.crop_pct) for side in self.height_width)
        if self.policy == "squash":
            return target[0], target[1]
        if self.policy == "crop" and target[0] == target[1]:
            longer = int(target[0] * max(height, width) / min(height, width))
            return (target[0], longer) if height <= width else (longer, target[0])
        choose = min if self.policy == "crop" else max
        ratio = choose(height / target[0], width / target[1])
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _framed(self, pixels: Tensor) -> Tensor:
        """Cut out the centre, and fill around it what is missing."""
        height, width = self.height_width
        pixels = _centre(pixels, min(height, pixels.shape[-2]), min(width, pixels.shape[-1]))
        if pixels.shape[-2:] == (height, width):
            return pixels
        top, left = _offset(pixels.shape[-2], height), _offset(pixels.shape[-1], width)
        canvas = self._canvas(pixels, height, width)
        canvas[..., top : top + pixels.shape[-2], left : left + pixels.shape[-1]] = pixels
        return canvas

    def _canvas(self, pixels: Tensor, height: int, width: int) -> Tensor:
        channels = pixels.shape[-3]
        colour = self.fill if channels == 3 else (self.fill[0],) * channels
        fill = torch.tensor(colour, dtype=torch.uint8, device=pixels.device)[:, None, None]
        return fill.expand(*pixels.shape[:-2], height, width).clone()


def _scale(pixels: Tensor, size: tuple[int, int], mode: InterpolationMode) -> Tensor:
    """Scale uint8 pixels to (height, width), antialiased.

    To a width of 1 lying on the side and through float32: torch's kernels (2.14) fail or return wrong values there.
    """
    if size[1] == 1:
        lying = pixels.mT.float().contiguous()
        row: Tensor = functional.resize(lying, [1, size[0]], interpolation=mode, antialias=True)
        return row.round().clamp(0, 255).to(torch.uint8).mT
    return cast(Tensor, functional.resize(pixels, list(size), interpolation=mode, antialias=True))


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"ResizeAdapter: {field} must be one of {', '.join(choices)}, got {value!r}")


def _offset(inner: int, outer: int) -> int:
    """Where `inner` begins in `outer` when centred: torchvision's rounding, half to even where it is cropped."""
    return (outer - inner) // 2 if inner <= outer else -round((inner - outer) / 2)


def _shortened(side: int, longest: int) -> int:
    """`side`, or near `longest` with the same parity, so that the middle stays the middle."""
    return side if side <= longest else longest + (side - longest) % 2


def _centre(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = -_offset(pixels.shape[-2], height), -_offset(pixels.shape[-1], width)
    return pixels[..., top : top + height, left : left + width]
