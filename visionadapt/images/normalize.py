"""`NormalizeAdapter`: uint8 pixels ↔ the floats that a backbone was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionadapt.errors import SpecError, UsageError
from visionadapt.images.input_types import to_tensor

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform

Channels = float | tuple[float, ...]
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class NormalizeAdapter:
    """(x / 255 − mean) / std per channel, as float32, on the device where the pixels are.

    uint8 tensors are [C, H, W] or [N, C, H, W], arrays [H, W, C] or [N, H, W, C]; what goes in comes out. Floats in
    [0, 1] (up to 0.001 outside) are taken as already divided by 255. Equal to torchvision v2's `to_dtype(scale=True)`
    followed by `normalize`.

    Attributes:
        mean: per-channel mean of pixels in [0, 1]; one number holds for every channel.
        std: per-channel standard deviation, positive; one number holds for every channel.

    An empty batch [0, C, H, W] stays one.

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
            raise SpecError(f"NormalizeAdapter: mean {self.mean!r} and std {self.std!r} differ in their length")

    @overload
    def __call__(self, pixels: Tensor) -> Tensor: ...
    @overload
    def __call__(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...

    def __call__(self, pixels: Any) -> Any:
        """Normalise to float32.

        Raises:
            UsageError: see the class.
        """
        if isinstance(pixels, np.ndarray):
            return _channels_last(self._forward(_channels_first(pixels)))
        if isinstance(pixels, Tensor):
            return self._forward(pixels.as_subclass(Tensor))
        raise UsageError(f"NormalizeAdapter takes uint8 tensors or arrays, got {type(pixels).__name__}")

    @overload
    def inverse(self, values: Tensor) -> Tensor: ...
    @overload
    def inverse(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...

    def inverse(self, values: Any) -> Any:
        """Normalised floats back to uint8 for showing: round(255·(x·std + mean)), cut to 0–255.

        Raises:
            UsageError: neither a float tensor nor a float array, or another number of channels.
        """
        if isinstance(values, np.ndarray):
            return _channels_last(self._backward(_channels_first(values)))
        if isinstance(values, Tensor):
            return self._backward(values.as_subclass(Tensor))
        raise UsageError(f"NormalizeAdapter.inverse takes float tensors or arrays, got {type(values).__name__}")

    @classmethod
    def measure(cls, pictures: Iterable[Image.Image | np.ndarray[Any, Any] | Tensor]) -> NormalizeAdapter:
        """The exact mean and (population) standard deviation per channel over all pixels of all pictures.

        One pass, constant memory: values are counted in integers, 256 counts a channel. Pictures are uint8 and may
        differ in size: PIL images, arrays [H, W, C], tensors [C, H, W] or batches of them.

        Raises:
            UsageError: no picture, pictures with different numbers of channels, no uint8, or a constant channel.
        """
        counts: Tensor | None = None
        for picture in pictures:
            found = _histogram(to_tensor(picture))
            if counts is not None and len(counts) != len(found):
                raise UsageError(f"pictures of {len(counts)} and of {len(found)} channels cannot be measured together")
            counts = found if counts is None else counts + found
        if counts is None:
            raise UsageError("there is no picture to measure mean and std on")
        mean, std = zip(*(_moments(channel.tolist()) for channel in counts), strict=True)
        if min(std) == 0:
            raise UsageError("a channel has the same value everywhere: its std is 0 and cannot normalise")
        return cls(mean=mean, std=std)

    def albumentations(self) -> ImageOnlyTransform:
        """This adapter as a transform for `albumentations.Compose`."""
        from visionadapt.images.albumentations_transform import as_albumentations

        return as_albumentations(self)

    def _forward(self, pixels: Tensor) -> Tensor:
        mean, std = self._shaped(pixels)
        if pixels.dtype == torch.uint8:
            return pixels.to(torch.float32).mul_(1 / 255).sub_(mean).div_(std)
        if not pixels.is_floating_point():
            raise UsageError(f"NormalizeAdapter takes uint8 or floats in [0, 1], got {pixels.dtype}")
        low, high = (float(bound) for bound in torch.aminmax(pixels)) if len(pixels) else (0.0, 0.0)
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise UsageError(f"NormalizeAdapter takes floats in [0, 1], got {low:.4g} to {high:.4g}; give uint8 pixels")
        return (pixels.to(torch.float32) - mean).div_(std)

    def _backward(self, values: Tensor) -> Tensor:
        mean, std = self._shaped(values)
        if not values.is_floating_point():
            raise UsageError(f"NormalizeAdapter.inverse takes floats, got {values.dtype}")
        return values.to(torch.float32).mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)

    def _shaped(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std as [C or 1, 1, 1] on the device of the pixels."""
        if pixels.ndim not in (3, 4) or 0 in pixels.shape[-3:]:
            raise UsageError(f"NormalizeAdapter takes pictures [C, H, W] or batches of them, got {tuple(pixels.shape)}")
        parameters = []
        for value in (self.mean, self.std):
            if isinstance(value, tuple) and len(value) != pixels.shape[-3]:
                raise UsageError(f"NormalizeAdapter has {len(value)} channels, the picture {pixels.shape[-3]}")
            parameters.append(torch.tensor(_tuple(value), dtype=torch.float32, device=pixels.device)[:, None, None])
        return parameters[0], parameters[1]


def _tuple(value: Channels) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _checked_channels(field: str, value: object) -> Channels:
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not numbers or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise SpecError(f"NormalizeAdapter: {field} must be a finite number or one per channel, got {value!r}")
    floats = tuple(float(number) for number in numbers)
    return floats if isinstance(value, list | tuple) else floats[0]


def _channels_first(array: np.ndarray[Any, Any]) -> Tensor:
    if array.ndim not in (3, 4):
        raise UsageError(f"NormalizeAdapter takes arrays [H, W, C] or batches of them, got shape {array.shape}")
    return torch.from_numpy(np.array(array, order="C")).movedim(-1, -3)


def _channels_last(pixels: Tensor) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(pixels.movedim(-3, -1).numpy())


def _histogram(pixels: Tensor) -> Tensor:
    """How often each value 0–255 occurs, int64 [C, 256]."""
    channels = pixels.movedim(-3, 0).flatten(1)
    return torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).cpu()


def _moments(counts: list[int]) -> tuple[float, float]:
    """Mean and standard deviation, in [0, 1], of a histogram; integers until the last division."""
    total = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    return first / total / 255, math.sqrt((second * total - first * first) / total**2) / 255
