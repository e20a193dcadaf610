"""Bottleneck adapters: a narrow residual network after a block, or after its attention and MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from visionadapt.adapters.placement import Placement, require
from visionadapt.adapters.pointwise import activation, per_channel, pointwise, zero_
from visionadapt.adapters.sublayers import closing_projections
from visionadapt.core.sites import Layout, Site
from visionadapt.system.noise import Dropout, DropPath


@dataclass(frozen=True)
class Bottleneck(Placement):
    """A residual bottleneck: y' = y + s ⊙ (U φ(D n(y) + d) + u).

    The defaults are Adapter+ (Steitz & Roth, "Adapters Strike Back", CVPR 2024): after the block, learned scale per
    channel, GELU, no norm, D from a normal distribution with standard deviation 0.01 truncated at two of them. U starts
    at zero, so the model starts as pretrained. `houlsby` (Houlsby et al., ICML 2019) acts on the output of the last
    projections of attention and MLP, before a layer scale and the residual addition; `pfeiffer` (Pfeiffer et al., EACL
    2021) only on the MLP's.

    Trainable parameters per site with C channels: 2·rank·C + rank + C, plus C for the scale and 2·C for the norm.

    Attributes:
        rank: width of the bottleneck, at least 1.
        placement: `post`, `pfeiffer` or `houlsby`; the last two need blocks that consist of an attention and an MLP.
        scale: True for a learned scale per channel, starting at 1.
        norm: True for a LayerNorm over the channels before D.
        activation: gelu, relu, silu or identity.
        dropout: probability in [0, 1) that a unit of the bottleneck is zeroed in training.
        drop_path: probability in [0, 1) that the adapter is skipped for a sample in training.
    """

    rank: int = 8
    placement: Literal["post", "pfeiffer", "houlsby"] = "post"
    scale: bool = True
    norm: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.placement in ("post", "pfeiffer", "houlsby"),
            f"placement={self.placement} is unknown; choose post, pfeiffer or houlsby",
        )

    @property
    def needs(self) -> str:
        """What a model must have."""
        return "blocks" if self.placement == "post" else "blocks made of an attention and an MLP"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return the blocks, or the last projections of their attentions and MLPs."""
        if self.placement == "post":
            return super().own_places(sites)
        return closing_projections(sites, mlp_only=self.placement == "pfeiffer")

    def build(self, site: Site) -> nn.Module:
        return BottleneckLayer(self, site.dim, site.layout)


class BottleneckLayer(nn.Module):
    """The weights of `Bottleneck` at one site: `layer(x, y, host)` changes y, a tensor of the site's layout."""

    def __init__(self, settings: Bottleneck, dim: int, layout: Layout) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.norm = nn.LayerNorm(dim) if settings.norm else None
        self.down = pointwise(layout, dim, settings.rank)
        self.activation = activation(settings.activation)
        self.dropout = Dropout(settings.dropout)
        self.up = pointwise(layout, settings.rank, dim)
        self.scale = nn.Parameter(torch.ones(dim)) if settings.scale else None
        self.drop_path = DropPath(settings.drop_path)
        nn.init.trunc_normal_(self.down.weight, std=0.01, a=-0.02, b=0.02)
        zero_(self.down.bias, self.up.weight, self.up.bias)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y + s ⊙ up(act(down(norm(y)))); the host and its input x are not used."""
        hidden = self.dropout(self.activation(self.down(self._normalised(y))))
        change = self.up(hidden)
        if self.scale is not None:
            change = change * per_channel(self.scale, self.layout)
        changed: Tensor = y + self.drop_path(change)
        return changed

    def _normalised(self, y: Tensor) -> Tensor:
        if self.norm is None:
            return y
        axis = 1 if self.layout == "NCHW" else -1
        normalised: Tensor = self.norm(y.movedim(axis, -1)).movedim(-1, axis)
        return normalised
