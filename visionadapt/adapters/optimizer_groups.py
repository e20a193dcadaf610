"""Parameter groups for an optimizer: learning rates that decrease towards the stem, weight decay for matrices only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import nn

from visionadapt.core.sites import Site


class ParameterGroup(TypedDict):
    """One group, in the form that `torch.optim` takes."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def parameter_groups(
    model: nn.Module,
    sites: Sequence[Site],
    learning_rate: float,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
) -> list[ParameterGroup]:
    """Group the trainable parameters by depth, and leave vectors and scalars without weight decay.

    With n blocks, depth 0 is the stem, k + 1 block k, and n + 1 what follows the blocks; the rate at depth d is
    learning_rate · layer_decay^(n + 1 - d) (Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022).
    A parameter outside of all blocks counts as stem if the model holds it before its first block.

    Args:
        model: the model whose parameters with `requires_grad` are grouped.
        sites: its sites, which assign modules to blocks.
        learning_rate: rate at the largest depth.
        weight_decay: weight decay of parameters with two or more axes.
        layer_decay: factor on the rate per depth, in (0, 1].
    """
    depths = _depths(model, sites)
    top = max((site.block for site in sites if site.block is not None), default=-1) + 2
    grouped: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            grouped.setdefault((depths.get(id(parameter), top), parameter.ndim > 1), []).append(parameter)
    return [
        ParameterGroup(
            params=parameters,
            lr=learning_rate * layer_decay ** (top - depth),
            weight_decay=weight_decay if decayed else 0.0,
        )
        for (depth, decayed), parameters in sorted(grouped.items(), key=lambda item: item[0])
    ]


def _depths(model: nn.Module, sites: Sequence[Site]) -> dict[int, int]:
    """Return the depth of every parameter up to the last block by its id; parameters after it are missing."""
    depths = {
        id(parameter): site.block + 1
        for site in sites
        if site.block is not None
        for parameter in site.module.parameters()
    }
    for parameter in model.parameters():
        if id(parameter) in depths:
            break
        depths[id(parameter)] = 0
    return depths
