"""The preprocessing that a backbone was trained with: image size, mean, standard deviation, interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionadapt.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DataConfig:
    """The preprocessing a backbone was trained with.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: mean of each channel for pixels in [0, 1].
        std: standard deviation of each channel for pixels in [0, 1].
        interpolation: name of the resampling filter, such as `bicubic`.
        crop_pct: share of the resized image's short side that the centre crop shows, in (0, 1].
        crop_mode: how timm crops: `center`, `squash` or `border`.
        channels: of the images; where they are not three, mean and std are those of the RGB channels whose weights the
            first layer was adapted from: their means for one channel, else repeated.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    channels: int = 3


def data_config(model: nn.Module, image_size: int | None = None, channels: int = 3) -> DataConfig:
    """Read the preprocessing from the model's own `pretrained_cfg`; `image_size` overrides the pretrained one.

    Raises:
        BackboneError: the model does not take square images with three channels.
    """
    from timm.data import config

    found: dict[str, Any] = config.resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    own, height, width = found["input_size"]
    if own != 3 or (height != width and image_size is None):
        raise BackboneError(f"the backbone takes {own}×{height}×{width} inputs; only square RGB ones can be used")
    mean, std = (_for_channels(tuple(map(float, found[name])), channels) for name in ("mean", "std"))
    return DataConfig(
        image_size=image_size or height,
        mean=mean,
        std=std,
        interpolation=str(found["interpolation"]),
        crop_pct=float(found["crop_pct"]),
        crop_mode=str(found["crop_mode"]),
        channels=channels,
    )


def _for_channels(rgb: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return a number per channel from those of red, green and blue.

    >>> _for_channels((0.25, 0.5, 0.75), 1), _for_channels((0.25, 0.5, 0.75), 5)
    ((0.5,), (0.25, 0.5, 0.75, 0.25, 0.5))
    """
    if channels == 1:
        return (sum(rgb) / len(rgb),)
    return tuple(rgb[channel % len(rgb)] for channel in range(channels))
