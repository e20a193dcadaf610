"""Features from several depths of a backbone: mean and standard deviation of each channel after some blocks.

Which depth tells the classes apart depends on the images: on digits and clothes, heads on several depths are better
than on the last features alone. After Evci et al., "Head2Toe", 2022, which selects among pooled activations of all
layers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from visionadapt.backbones.anatomy import Anatomy
from visionadapt.core.sites import Layout

FeatureSet = Literal["last", "stages"]
"""`last`: the pooled features of the model; `stages`: these, and the moments after each stage."""

MOMENTS = "moments"
"""Name of the tensor [B, M] that carries the moments so far from block to block."""

_FEWEST_STAGES = 4
_MOST_BLOCKS = 8
_EPSILON = 1e-12


def tapped_blocks(anatomy: Anatomy) -> frozenset[int]:
    """Return the blocks whose moments become features: the last one of each stage.

    With fewer than four stages, or more than eight, they are at most eight blocks at equal distances, the last one
    included; none where the model is not divided.
    """
    count = len(anatomy.blocks)
    if not anatomy.known:
        return frozenset()
    stages = [block.stage for block in anatomy.blocks]
    ends = [index for index in range(count) if index == count - 1 or stages[index] != stages[index + 1]]
    if not _FEWEST_STAGES <= len(ends) <= _MOST_BLOCKS:
        chosen = ends if len(ends) > _MOST_BLOCKS else list(range(count))
        number = min(len(chosen), _MOST_BLOCKS)
        ends = [chosen[len(chosen) * (place + 1) // number - 1] for place in range(number)]
    return frozenset(ends)


def moments(x: Tensor, layout: Layout, prefix_tokens: int) -> Tensor:
    """Return mean and standard deviation of each channel over all positions: [B, …] → [B, 2C], computed in float32.

    Leading tokens that are not patches do not count.
    """
    if layout == "NLC":
        positions = x[:, prefix_tokens:].flatten(1, -2).transpose(1, 2)
    else:
        positions = (x if layout == "NCHW" else x.movedim(-1, 1)).flatten(2)
    with torch.autocast(x.device.type, enabled=False):
        variance, mean = torch.var_mean(positions.float(), dim=2, correction=0)
        return torch.cat([mean, (variance + _EPSILON).sqrt()], dim=1).to(x.dtype)
