"""`ResizeAdapter` without branches on an image's size, so that torch.export traces it once for every size.

It computes sizes and positions in tensors of 64 bits, and takes the sizes out of them: to torch.export each is then a
number of its own, where terms in the image's sides would grow with every step, take seconds to simplify, and as long to
read again in torch.export.load. Pixels are scaled with the same kernels of torch, which give the same bits on a CPU.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from visionadapt.images import ResizeAdapter


def resized(resize: ResizeAdapter, pixels: Tensor) -> Tensor:
    """Scale uint8 [N, C, H, W] of any size to uint8 [N, C, S, T]."""
    sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in pixels.shape[-2:]]
    if resize.policy == "crop":
        pixels, sides = _trimmed(resize, pixels, sides)
    sides = _scaled(resize, *sides)
    squashed = resize.policy == "squash"
    height_width = list(resize.scaled_height_width) if squashed else [_size(side) for side in sides]
    pixels = _scale(resize, pixels, height_width)
    rows, columns = (_positions(*pair) for pair in zip(sides, resize.height_width, strict=True))
    for axis, places, side in ((-2, rows, sides[0]), (-1, columns, sides[1])):
        pixels = pixels.index_select(axis, torch.minimum(places.clamp(min=0), side - 1))
    if resize.policy != "letterbox":
        return pixels
    inside = ((rows >= 0) & (rows < sides[0]))[:, None] & (columns >= 0) & (columns < sides[1])
    colour = resize.fill if pixels.shape[1] == 3 else (resize.fill[0],) * pixels.shape[1]
    planes = [torch.full((1, 1), level, dtype=torch.uint8) for level in colour]
    return torch.where(inside, pixels, torch.stack(planes))


def _scale(resize: ResizeAdapter, pixels: Tensor, height_width: list[int]) -> Tensor:
    """Scale pixels with torch's kernels.

    A single channel is scaled twice: whether its maps lie channel by channel or pixel by pixel depends on their size,
    which torch.export does not know.
    """
    channels = pixels.shape[1]
    doubled = pixels.expand(-1, 2, -1, -1) if channels == 1 else pixels
    whole = doubled.clone(memory_format=torch.contiguous_format)
    if resize.interpolation == "nearest":
        scaled: Tensor = torch.ops.aten._upsample_nearest_exact2d(whole, height_width)
    else:
        scaled = getattr(torch.ops.aten, f"_upsample_{resize.interpolation}2d_aa")(whole, height_width, False)
    return scaled[:, :channels]


def _size(side: Tensor) -> int:
    """Return a side of at least one pixel as a size of tensors."""
    size = cast(int, side.item())
    torch._check(size >= 1)
    return size


def _trimmed(resize: ResizeAdapter, pixels: Tensor, sides: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Cut an extremely long image to its middle; return it with its sides."""
    longest = torch.minimum(*sides) * resize.longest_ratio
    kept = [torch.minimum(side, longest + (side - longest).clamp(min=0) % 2) for side in sides]
    for axis, side, part in zip((-2, -1), sides, kept, strict=True):
        pixels = pixels.index_select(axis, torch.arange(_size(part)) + (side - part) // 2)
    return pixels, kept


def _scaled(resize: ResizeAdapter, height: Tensor, width: Tensor) -> list[Tensor]:
    """Return height and width after scaling, before cropping or filling."""
    target = resize.scaled_height_width
    if resize.policy == "squash":
        return [torch.scalar_tensor(side, dtype=torch.int64) for side in target]
    if resize.policy == "crop" and target[0] == target[1]:
        shorter = torch.minimum(height, width)
        return [target[0] * side // shorter for side in (height, width)]
    sides = (height.double(), width.double())
    choose = torch.minimum if resize.policy == "crop" else torch.maximum
    ratio = choose(*(side / full for side, full in zip(sides, target, strict=True)))
    return [(side / ratio).round().clamp(min=1).long() for side in sides]


def _positions(scaled: Tensor, shown: int) -> Tensor:
    """Return which row (or column) of the scaled image each one of the output shows, int64 [S]; some are outside."""
    over = (scaled - shown).clamp(min=0)
    half_to_even = over // 2 + (over % 2) * ((over // 2) % 2)
    first = half_to_even - (shown - scaled).clamp(min=0) // 2
    return torch.arange(shown) + first
