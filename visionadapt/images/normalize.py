"""`NormalizeAdapter`: uint8 pixels to the floats that a backbone was trained on, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionadapt.errors import SpecError, UsageError
from visionadapt.images.albumentations_transform import AlbumentationsMixin
from visionadapt.images.checks import is_finite
from visionadapt.images.input_types import channels_last, to_tensor

Channels = float | tuple[float, ...]
TensorOrArray = TypeVar("TensorOrArray", Tensor, np.ndarray)
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class NormalizeAdapter(AlbumentationsMixin):
    """Compute (x / 255 − mean) / std per channel, in float32, on the device of the pixels.

    uint8 tensors are [C, H, W] or [N, C, H, W], arrays [H, W, C] or [N, H, W, C]; the result has the same type and
    shape. N may be 0. Floats in [0, 1] (up to 0.001 outside) count as already divided by 255. Equal to torchvision
    v2's `to_dtype(scale=True)` followed by `normalize`.

    Attributes:
        mean: mean of each channel for pixels in [0, 1]; one number applies to every channel.
        std: standard deviation of each channel, positive; one number applies to every channel.

    Raises:
        SpecError: a field is out of its range, or the two have different lengths.
        UsageError: on a call, another dtype, shape, number of channels, or floats outside of [0, 1].
    """

    mean: Channels = 0.5
    std: Channels = 0.5

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            object.__setattr__(self, field, _checked_channels(field, getattr(self, field)))
        if min(_tuple(self.std)) <= 0:
            raise SpecError(f"NormalizeAdapter: std must be positive, got {self.std!r}")
        lengths = {len(value) for value in (self.mean, self.std) if isinstance(value, tuple)}
        if len(lengths) > 1:
            raise SpecError(f"NormalizeAdapter: mean {self.mean!r} and std {self.std!r} differ in length")

    def __call__(self, pixels: TensorOrArray) -> TensorOrArray:
        """Normalise pixels to float32 of the same type and shape.

        Raises:
            UsageError: see the class.
        """
        return _on_tensor(pixels, self._forward, "NormalizeAdapter takes uint8 tensors or arrays")

    def inverse(self, values: TensorOrArray) -> TensorOrArray:
        """Turn normalised floats back into uint8 for display: round(255·(x·std + mean)), clipped to 0–255.

        Raises:
            UsageError: neither a float tensor nor a float array, or another number of channels.
        """
        return _on_tensor(values, self._backward, "NormalizeAdapter.inverse takes float tensors or arrays")

    @classmethod
    def measure(cls, images: Iterable[Image.Image | np.ndarray[Any, Any] | Tensor]) -> NormalizeAdapter:
        """Measure the exact mean and population standard deviation of each channel over all pixels of all images.

        One pass in constant memory: 256 integer counts per channel. Images are uint8 and may differ in size: PIL
        images, arrays [H, W, C], tensors [C, H, W], or batches of arrays or tensors.

        Raises:
            UsageError: no image, images with different numbers of channels, not uint8, or a constant channel.
        """
        counts: Tensor | None = None
        for image in images:
            found = _histogram(to_tensor(image))
            if counts is not None and len(counts) != len(found):
                raise UsageError(f"images of {len(counts)} and of {len(found)} channels cannot be measured together")
            counts = found if counts is None else counts + found
        if counts is None:
            raise UsageError("there is no image to measure mean and std on")
        mean, std = zip(*(_moments(channel.tolist()) for channel in counts), strict=True)
        if min(std) == 0:
            raise UsageError("a channel has the same value everywhere: its std is 0")
        return cls(mean=mean, std=std)

    def _forward(self, pixels: Tensor) -> Tensor:
        mean, std = self._shaped(pixels)
        if pixels.dtype == torch.uint8:
            return pixels.to(torch.float32).mul_(1 / 255).sub_(mean).div_(std)
        if not pixels.is_floating_point():
            raise UsageError(f"NormalizeAdapter takes uint8 or floats in [0, 1], got {pixels.dtype}")
        low, high = (float(bound) for bound in torch.aminmax(pixels)) if len(pixels) else (0.0, 0.0)
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise UsageError(f"NormalizeAdapter takes floats in [0, 1], got {low:.4g} to {high:.4g}; pass uint8 pixels")
        return (pixels.to(torch.float32) - mean).div_(std)

    def _backward(self, values: Tensor) -> Tensor:
        mean, std = self._shaped(values)
        if not values.is_floating_point():
            raise UsageError(f"NormalizeAdapter.inverse takes floats, got {values.dtype}")
        return values.to(torch.float32).mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)

    def _shaped(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std as [C or 1, 1, 1] on the device of the pixels."""
        if pixels.ndim not in (3, 4) or 0 in pixels.shape[-3:]:
            raise UsageError(f"NormalizeAdapter takes images [C, H, W] or batches of them, got {tuple(pixels.shape)}")
        parameters = []
        for value in (self.mean, self.std):
            if isinstance(value, tuple) and len(value) != pixels.shape[-3]:
                raise UsageError(f"NormalizeAdapter has {len(value)} channels, the image {pixels.shape[-3]}")
            parameters.append(
                torch.tensor(_tuple(value), dtype=torch.float32)[:, None, None].to(pixels.device, non_blocking=True)
            )
        return parameters[0], parameters[1]


def _tuple(value: Channels) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _checked_channels(field: str, value: object) -> Channels:
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not numbers or not all(isinstance(number, int | float) and is_finite(number) for number in numbers):
        raise SpecError(f"NormalizeAdapter: {field} must be a finite number or one per channel, got {value!r}")
    floats = tuple(float(number) for number in numbers)
    return floats if isinstance(value, list | tuple) else floats[0]


def _on_tensor(values: TensorOrArray, function: Callable[[Tensor], Tensor], expected: str) -> TensorOrArray:
    if isinstance(values, np.ndarray):
        pixels = torch.from_numpy(np.array(values, order="C"))
        return channels_last(function(pixels.movedim(-1, -3) if pixels.ndim > 2 else pixels))
    if isinstance(values, Tensor):
        return function(values.as_subclass(Tensor))
    raise UsageError(f"{expected}, got {type(values).__name__}")


def _histogram(pixels: Tensor) -> Tensor:
    """Count how often each value 0–255 occurs, int64 [C, 256]."""
    channels = pixels.movedim(-3, 0).flatten(1)
    return torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).cpu()


def _moments(counts: list[int]) -> tuple[float, float]:
    """Return mean and standard deviation, in [0, 1], of a histogram; integers until the last division."""
    total = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    return first / total / 255, math.sqrt((second * total - first * first) / total**2) / 255
