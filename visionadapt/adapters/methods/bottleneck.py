"""Bottleneck adapters: a narrow residual network behind a block or behind its two sublayers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from visionadapt.adapters.drop_path import DropPath
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import activation, per_channel, pointwise, require
from visionadapt.adapters.sublayers import closing_projections
from visionadapt.core.sites import Layout, Site
from visionadapt.system.noise import Dropout


@dataclass(frozen=True)
class Bottleneck(Placement):
    """A residual bottleneck: y = x + s ⊙ (U φ(D n(x) + d) + u).

    The defaults are Adapter+ (Steitz & Roth, "Adapters Strike Back", CVPR 2024): behind the block, learned scale per
    channel, GELU, no norm, D from a normal distribution of deviation 0.01 cut at two deviations. U starts at zero, so
    that the model starts as it was pretrained. `houlsby` (Houlsby et al., ICML 2019) acts on what the last projections
    of both attention and MLP return, in front of a layer scale and of the stream; `pfeiffer` (Pfeiffer et al., EACL
    2021) on the MLP's alone.

    Trainable parameters a place with C channels: 2·rank·C + rank + C, and C more for the scale, 2·C more for the norm.

    Attributes:
        rank: width of the bottleneck.
        placement: `post`, `pfeiffer` or `houlsby`. The last two need blocks that consist of an attention and an MLP.
        scale: True for a learned scale per channel, starting at 1.
        norm: True for a LayerNorm over the channels in front of D.
        activation: gelu, relu, silu or identity.
        dropout: share of the bottleneck's units that are zeroed in training.
        drop_path: share of samples for which the adapter is skipped in training.
    """

    rank: int = 8
    placement: Literal["post", "pfeiffer", "houlsby"] = "post"
    scale: bool = True
    norm: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank={self.rank} is too small; a bottleneck needs rank 1 or more")
        require(
            self.placement in ("post", "pfeiffer", "houlsby"),
            f"placement={self.placement} is unknown; choose post, pfeiffer or houlsby",
        )
        require(
            0 <= self.dropout < 1 and 0 <= self.drop_path < 1, "dropout and drop_path are shares: 0 or more, below 1"
        )
        activation(self.activation)

    @property
    def needs(self) -> str:
        """What a model has to have."""
        return "blocks" if self.placement == "post" else "blocks made of an attention and an MLP"

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        return "" if site.called else "its parent reads its weight and never calls it"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Where it goes when no pattern is given."""
        if self.placement == "post":
            return [site for site in sites if site.kind == "block"]
        return closing_projections(sites, mlp_only=self.placement == "pfeiffer")

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
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
        for start_at_zero in (self.down.bias, self.up.weight, self.up.bias):
            if start_at_zero is not None:
                nn.init.zeros_(start_at_zero)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """y + s ⊙ up(act(down(norm(y)))); the host and its input x are not needed."""
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
