"""Run a function of uint8 CHW tensors on PIL images, NumPy arrays and torch tensors, and return the same type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from visionadapt.errors import UsageError

_DEEP = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of more than 8 bits, which `convert("RGB")` clips to 255."""

ImageLike = TypeVar("ImageLike", Image.Image, np.ndarray, Tensor)


def on_tensor(image: ImageLike, function: Callable[[Tensor], Tensor]) -> ImageLike:
    """Apply `function` (uint8 [..., C, H, W] → the same) to an image and return the result in the image's own type.

    PIL images are converted to RGB first, without their transparency, which `DecodeAdapter` composes. Arrays are
    [H, W, C] or [N, H, W, C], tensors [C, H, W] or [N, C, H, W]; both uint8.

    Raises:
        UsageError: another type, dtype or number of axes, a PIL image of more than 8 bits, or an empty image.
    """
    pixels = function(to_tensor(image))
    if isinstance(image, Tensor):
        return cast(Tensor, tv_tensors.Image(pixels)) if isinstance(image, tv_tensors.Image) else pixels
    array = channels_last(pixels)
    return Image.fromarray(array) if isinstance(image, Image.Image) else array


def to_tensor(image: Image.Image | np.ndarray[Any, Any] | Tensor) -> Tensor:
    """Return the image as a uint8 tensor [C, H, W] (or [N, C, H, W]), which shares its memory where possible.

    Raises:
        UsageError: another type, not uint8, a PIL image of more than 8 bits, not 3 or 4 axes, or an empty image.
    """
    if isinstance(image, Image.Image):
        if image.mode in _DEEP:
            raise UsageError(
                f"expected an image of 8 bits, got a PIL image of mode {image.mode}, which Pillow would clip; "
                "DecodeAdapter converts any image"
            )
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        pixels = torch.from_numpy(_shareable(image))
        pixels = pixels.movedim(-1, -3) if pixels.ndim >= 3 else pixels
    elif isinstance(image, Tensor):
        pixels = image.as_subclass(Tensor)
    else:
        raise UsageError(f"expected a PIL image, a NumPy array or a torch tensor, got {type(image).__name__}")
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4) or pixels.numel() == 0:
        raise UsageError(
            f"expected uint8 pixels of 3 or 4 axes (HWC arrays, CHW tensors, or batches of them), got "
            f"{pixels.dtype} of shape {tuple(image.shape)}; DecodeAdapter converts any image to them"
        )
    return pixels


def channels_last(pixels: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor [..., C, H, W] as a contiguous array [..., H, W, C]."""
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())


def _shareable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array, or a copy where torch cannot share it: read-only, negative strides, foreign byte order."""
    if array.flags.writeable and all(step >= 0 for step in array.strides) and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="), copy=True, order="C")
