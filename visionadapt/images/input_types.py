"""What goes in comes out: run one function of uint8 CHW tensors on PIL images, NumPy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from visionadapt.errors import UsageError

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)


def on_tensor(picture: Picture, function: Callable[[Tensor], Tensor]) -> Picture:
    """Apply `function` (uint8 [..., C, H, W] → the same) to a picture and return the kind of picture that came in.

    PIL images become RGB first where they are not. Arrays are [H, W, C] or [N, H, W, C], tensors [C, H, W] or
    [N, C, H, W]; both uint8.

    Raises:
        UsageError: another type, dtype or number of axes, or an empty picture.
    """
    if isinstance(picture, Tensor):
        result = function(to_tensor(picture))
        return cast(Tensor, tv_tensors.Image(result)) if isinstance(picture, tv_tensors.Image) else result
    if isinstance(picture, Image.Image):
        return Image.fromarray(_channels_last(function(to_tensor(picture))))
    if isinstance(picture, np.ndarray):
        return _channels_last(function(to_tensor(picture)))
    raise UsageError(f"expected a PIL image, a NumPy array or a torch tensor, got {type(picture).__name__}")


def to_tensor(picture: Image.Image | np.ndarray[Any, Any] | Tensor) -> Tensor:
    """A uint8 tensor [C, H, W] (or [N, C, H, W]) that holds the picture; it shares memory where it can.

    Raises:
        UsageError: not a uint8 picture of 3 or 4 axes, or an empty one.
    """
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    if isinstance(picture, np.ndarray):
        pixels = torch.from_numpy(_writable(picture))
        pixels = pixels.movedim(-1, -3) if pixels.ndim >= 3 else pixels
    elif isinstance(picture, Tensor):
        pixels = picture.as_subclass(Tensor)
    else:
        raise UsageError(f"expected a PIL image, a NumPy array or a torch tensor, got {type(picture).__name__}")
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4) or pixels.numel() == 0:
        raise UsageError(
            f"expected uint8 pixels of 3 or 4 axes (HWC arrays, CHW tensors, or batches of them), got "
            f"{pixels.dtype} of shape {tuple(picture.shape)}; DecodeAdapter makes them of anything"
        )
    return pixels


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array itself, or a copy where torch could not share it: read-only, of negative strides or foreign bytes."""
    if array.flags.writeable and all(step >= 0 for step in array.strides) and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="), copy=True, order="C")


def _channels_last(pixels: Tensor) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())
