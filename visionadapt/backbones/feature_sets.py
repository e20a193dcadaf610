"""Features from several depths of a backbone: mean and standard deviation of each channel after its last blocks.

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

FeatureSet = Literal["last", "blocks"]
"""`last`: the pooled features of the model; `blocks`: these, and the moments after each of the last blocks."""

MOMENTS = "moments"
"""Name of the tensor [B, M] that carries the moments so far from block to block."""

_TAPPED = 4  # how it was chosen: docs/measurements/defaults.md
_EPSILON = 1e-12


def tapped_blocks(anatomy: Anatomy) -> frozenset[int]:
    """Return the blocks whose moments become features: the last four; none where the model is not divided."""
    count = len(anatomy.blocks)
    return frozenset(range(max(count - _TAPPED, 0), count)) if anatomy.known else frozenset()


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
