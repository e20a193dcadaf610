"""`ResizeAdapter`: scale images of any height and width to one size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from visionadapt.errors import SpecError
from visionadapt.images.albumentations_transform import AlbumentationsMixin
from visionadapt.images.checks import checked_colour, checked_count
from visionadapt.images.input_types import ImageLike, on_tensor

Policy = Literal["crop", "squash", "letterbox"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]

_MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST_EXACT,
}
_LONGEST = 16


class Placement(NamedTuple):
    """The rectangle that the complete image covers in the output, in output pixels; parts outside are cropped off.

    Row y of an image of height h is at `top + y · height / h` in the output; columns likewise.

    Attributes:
        top: first row; negative where rows are cropped off.
        left: first column; negative where columns are cropped off.
        height: number of rows, cropped ones included.
        width: number of columns, cropped ones included.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ResizeAdapter(AlbumentationsMixin):
    """Resize an image of any size to `size`, antialiased.

    Called with a PIL image, a uint8 array [H, W, C] or [N, H, W, C], or a uint8 tensor [C, H, W] or [N, C, H, W], it
    returns the same type; all use torchvision's uint8 kernel and agree bit for bit.

    - `crop`: scale the short side to floor(size / crop_pct), then crop the centre; timm's default. Of an image more
      than 16 times as long as wide, only the middle 16 widths are scaled.
    - `squash`: scale both sides to floor(size / crop_pct), which loses the aspect ratio, then crop the centre; timm's
      crop mode `squash`.
    - `letterbox`: scale the long side to floor(size / crop_pct), then fill the rest with `fill`; timm's crop mode
      `border`, which fills with the mean. Example: 300 × 400 (height × width) at size 224: the scale is
      224 / 400 = 0.56, the image 168 × 224, with (224 − 168) // 2 = 28 filled rows above and below.

    Attributes:
        size: height and width of the output in pixels; one number for a square.
        policy: `crop`, `squash` or `letterbox`.
        crop_pct: share of the scaled short (letterbox: long) side that the output shows, in (0, 1].
        interpolation: `bicubic`, `bilinear` or `nearest` (not antialiased; as Pillow's except for ties).
        fill: RGB colour 0–255 around a letterboxed image; a single number is a grey. Images without exactly 3 channels
            are filled with its first number.

    Raises:
        SpecError: a field is out of its range.
        UsageError: on a call, the image is not uint8, is empty, or has not 3 or 4 axes.
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
            raise SpecError(f"ResizeAdapter: crop_pct must be in (0, 1], got {self.crop_pct!r}")
        object.__setattr__(self, "fill", checked_colour("ResizeAdapter", "fill", self.fill))

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of the output in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def scaled_side(self) -> int:
        """The longest target side in pixels before cropping: floor(size / crop_pct)."""
        return max(self.scaled_height_width)

    @property
    def scaled_height_width(self) -> tuple[int, int]:
        """Height and width of the part of an image, scaled, of which the output shows `crop_pct`."""
        height, width = self.height_width
        return math.floor(height / self.crop_pct), math.floor(width / self.crop_pct)

    @property
    def longest_ratio(self) -> int:
        """How many times as long as wide an image may be under `crop`; of a longer one, only the middle is scaled."""
        return _LONGEST * math.ceil(max(self.height_width) / min(self.height_width))

    def __call__(self, image: ImageLike) -> ImageLike:
        """Resize an image, or a batch of images of one size; the result has the input's type and number of axes.

        Raises:
            UsageError: the image is not uint8, is empty, or has not 3 or 4 axes.
        """
        return on_tensor(image, self._resize)

    def placement(self, height: int, width: int) -> Placement:
        """Compute the rectangle that an image of `height` × `width` pixels covers in the output.

        >>> tuple(ResizeAdapter(224, policy="letterbox").placement(300, 400))
        (28, 0, 168, 224)
        """
        trimmed = self._trimmed(height, width)
        scaled = self._scaled(*trimmed)
        top, left = (_offset(inner, outer) for inner, outer in zip(scaled, self.height_width, strict=True))
        whole = [round(side * full / part) for side, full, part in zip(scaled, (height, width), trimmed, strict=True)]
        return Placement(top - (whole[0] - scaled[0]) // 2, left - (whole[1] - scaled[1]) // 2, *whole)

    def _resize(self, pixels: Tensor) -> Tensor:
        height, width = self._trimmed(pixels.shape[-2], pixels.shape[-1])
        pixels = _centre(pixels, height, width)
        scaled = _scale(pixels, self._scaled(height, width), _MODES[self.interpolation])
        return self._framed(scaled).contiguous()

    def _trimmed(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the part to scale: of an extremely long image under `crop`, its middle."""
        if self.policy != "crop":
            return height, width
        longest = min(height, width) * self.longest_ratio
        return _shortened(height, longest), _shortened(width, longest)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after scaling, before cropping or filling, rounded as in timm and torchvision."""
        target = self.scaled_height_width
        if self.policy == "squash":
            return target
        if self.policy == "crop" and target[0] == target[1]:
            longer = int(target[0] * max(height, width) / min(height, width))
            return (target[0], longer) if height <= width else (longer, target[0])
        choose = min if self.policy == "crop" else max
        ratio = choose(height / target[0], width / target[1])
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _framed(self, pixels: Tensor) -> Tensor:
        """Crop the centre, and fill what is missing around it."""
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

    A width of 1 is scaled transposed and in float32: torch's kernels (2.14) fail or return wrong values there.
    """
    if size[1] == 1:
        transposed = pixels.mT.float().contiguous()
        row: Tensor = functional.resize(transposed, [1, size[0]], interpolation=mode, antialias=True)
        return row.round().clamp(0, 255).to(torch.uint8).mT
    return cast(Tensor, functional.resize(pixels, list(size), interpolation=mode, antialias=True))


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"ResizeAdapter: {field} must be one of {', '.join(choices)}, got {value!r}")


def _offset(inner: int, outer: int) -> int:
    """Return where `inner` starts in `outer` when centred, rounded as in torchvision: half to even where cropped."""
    return (outer - inner) // 2 if inner <= outer else -round((inner - outer) / 2)


def _shortened(side: int, longest: int) -> int:
    """Return `side`, or about `longest` with the same parity, so that the centre stays the centre."""
    return side if side <= longest else longest + (side - longest) % 2


def _centre(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = -_offset(pixels.shape[-2], height), -_offset(pixels.shape[-1], width)
    return pixels[..., top : top + height, left : left + width]
