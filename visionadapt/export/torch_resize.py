"""`ResizeAdapter` without branches on an image's size, so that torch.export traces it once for every size.

It computes sizes and positions with `torch.sym_min` and `torch.sym_max` in place of conditions, and scales with the
same kernels of torch, which give the same bits on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionadapt.images import ResizeAdapter

Side = Any
"""A number of pixels: an int, or a torch.SymInt while tracing."""


def resized(resize: ResizeAdapter, pixels: Tensor) -> Tensor:
    """Scale uint8 [N, C, H, W] of any size to uint8 [N, C, S, T]."""
    if resize.policy == "crop":
        pixels = _trimmed(resize, pixels)
    height, width = _scaled(resize, pixels.shape[-2], pixels.shape[-1])
    pixels = pixels.clone(memory_format=torch.contiguous_format)
    if resize.interpolation == "nearest":
        pixels = torch.ops.aten._upsample_nearest_exact2d(pixels, [height, width])
    else:
        scale = getattr(torch.ops.aten, f"_upsample_{resize.interpolation}2d_aa")
        pixels = scale(pixels, [height, width], False)
    # From here on in tensors: terms in sizes grow with every step, and torch.export.load reads each of them anew.
    sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)]
    rows, columns = (_positions(*pair) for pair in zip(sides, resize.height_width, strict=True))
    for axis, places, side in ((-2, rows, sides[0]), (-1, columns, sides[1])):
        pixels = pixels.index_select(axis, torch.minimum(places.clamp(min=0), side - 1))
    if resize.policy != "letterbox":
        return pixels
    inside = ((rows >= 0) & (rows < sides[0]))[:, None] & (columns >= 0) & (columns < sides[1])
    colour = resize.fill if pixels.shape[1] == 3 else (resize.fill[0],) * pixels.shape[1]
    planes = [torch.full((1, 1), level, dtype=torch.uint8) for level in colour]
    return torch.where(inside, pixels, torch.stack(planes))


def _trimmed(resize: ResizeAdapter, pixels: Tensor) -> Tensor:
    """Cut an extremely long image to its middle."""
    longest = torch.sym_min(pixels.shape[-2], pixels.shape[-1]) * resize.longest_ratio
    for axis in (-2, -1):
        side = pixels.shape[axis]
        kept = torch.sym_min(side, longest + torch.sym_max(side - longest, 0) % 2)
        pixels = pixels.index_select(axis, torch.arange(kept) + (side - kept) // 2)
    return pixels


def _scaled(resize: ResizeAdapter, height: Side, width: Side) -> tuple[Side, Side]:
    """Return height and width after scaling, before cropping or filling."""
    target = resize.scaled_height_width
    if resize.policy == "squash":
        return target
    if resize.policy == "crop" and target[0] == target[1]:
        shorter = torch.sym_min(height, width)
        return target[0] * height // shorter, target[0] * width // shorter
    choose = torch.sym_min if resize.policy == "crop" else torch.sym_max
    ratio = choose(height / target[0], width / target[1])
    return torch.sym_max(1, _rounded(height / ratio)), torch.sym_max(1, _rounded(width / ratio))


def _rounded(number: Any) -> Side:
    """Round a positive number half to even, as `round`, which programs cannot store."""
    up = torch.sym_int(number + 0.5)
    return torch.sym_ite(up == number + 0.5, up - up % 2, up)


def _positions(scaled: Tensor, shown: int) -> Tensor:
    """Return which row (or column) of the scaled image each one of the output shows, int64 [S]; some are outside."""
    over = (scaled - shown).clamp(min=0)
    half_to_even = over // 2 + (over % 2) * ((over // 2) % 2)
    first = half_to_even - (shown - scaled).clamp(min=0) // 2
    return torch.arange(shown) + first
