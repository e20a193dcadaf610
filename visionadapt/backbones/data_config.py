"""The preprocessing that a backbone was trained with: image size, mean, standard deviation, interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from visionadapt.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DataConfig:
    """The preprocessing a backbone was trained with.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: mean of each RGB channel for pixels in [0, 1].
        std: standard deviation of each RGB channel for pixels in [0, 1].
        interpolation: name of the resampling filter, such as `bicubic`.
        crop_pct: share of the resized image's short side that the centre crop shows, in (0, 1].
        crop_mode: how timm crops: `center`, `squash` or `border`.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    crop_mode: str


def data_config(model: nn.Module, image_size: int | None = None) -> DataConfig:
    """Read the preprocessing from the model's own `pretrained_cfg`; `image_size` overrides the pretrained one.

    Raises:
        BackboneError: the model does not take square images with three channels.
    """
    from timm.data import config

    found: dict[str, Any] = config.resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    channels, height, width = found["input_size"]
    if channels != 3 or (height != width and image_size is None):
        raise BackboneError(f"the backbone takes {channels}×{height}×{width} inputs; only square RGB ones can be used")
    mean, std = (tuple(map(float, found[name])) for name in ("mean", "std"))
    return DataConfig(
        image_size=image_size or height,
        mean=cast("tuple[float, float, float]", mean),
        std=cast("tuple[float, float, float]", std),
        interpolation=str(found["interpolation"]),
        crop_pct=float(found["crop_pct"]),
        crop_mode=str(found["crop_mode"]),
    )
