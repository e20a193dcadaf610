"""RepAdapter: a linear bottleneck before a projection, which merges into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.host_weight import refuse_weight, takes_weight, weight_points
from visionadapt.adapters.placement import Placement, require
from visionadapt.adapters.pointwise import input_channels, mix_channels
from visionadapt.adapters.slot import Point
from visionadapt.adapters.sublayers import opening_projections, projections
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class RepAdapter(Placement):
    """A residual bottleneck without activation before a projection: x' = x + scale · (U (D x + d) + u).

    Luo et al., "Towards Efficient Visual Adaption via Structural Re-parameterization", 2023 (arXiv:2302.08106),
    equations 6 to 9; U is block-diagonal with `groups` blocks. It goes before the first projections of attention and
    MLP, in a convolutional block before every ungrouped convolution, and merges into them: W' = W (I + scale · U D). U
    starts at zero. Biases are left out where they could not merge: before a padded convolution, and where the parent
    reads the weight and never calls the module.

    Trainable parameters per site with C input channels: rank·C + rank·C / groups, and rank + C for the biases.

    Attributes:
        rank: width of the bottleneck, a multiple of `groups`.
        groups: number of diagonal blocks of U, a divisor of the input channels.
        scale: fixed factor on the change.
    """

    needs: ClassVar[str] = "a linear layer or a convolution inside the blocks"
    learning_rate: ClassVar[float] = 5e-3  # how it was chosen: docs/measurements/defaults.md

    rank: int = 8
    groups: int = 2
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank % self.groups == 0, f"rank={self.rank} must be a multiple of groups={self.groups}")

    def refuse(self, site: Site) -> str:
        reason = refuse_weight(site)
        if reason:
            return reason
        if isinstance(site.module, nn.Conv2d) and site.module.groups > 1:
            return "the weight of a grouped convolution cannot mix all of its input channels"
        channels = input_channels(site)
        return f"its {channels} input channels do not divide by groups={self.groups}" if channels % self.groups else ""

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return the first projections of attention and MLP; without such, every projection inside the blocks."""
        return opening_projections(sites) or projections(sites)

    def build(self, site: Site) -> nn.Module:
        return RepAdapterLayer(self, site)


class RepAdapterLayer(nn.Module):
    """The weights of `RepAdapter` at one site: `down` [rank, C], `up` [C, rank / groups] and their biases."""

    def __init__(self, settings: RepAdapter, site: Site) -> None:
        super().__init__()
        channels = input_channels(site)
        self.points: tuple[Point, ...] = weight_points(site, "input")
        self.groups = settings.groups
        self.scale = settings.scale
        self.down = nn.Parameter(torch.empty(settings.rank, channels))
        self.up = nn.Parameter(torch.zeros(channels, settings.rank // settings.groups))
        with_bias = not takes_weight(site) and not _pads(site.module)
        self.down_bias = nn.Parameter(torch.zeros(settings.rank)) if with_bias else None
        self.up_bias = nn.Parameter(torch.zeros(channels)) if with_bias else None
        nn.init.xavier_uniform_(self.down)

    def change_input(self, x: Tensor, host: nn.Module) -> Tensor:
        """Return x + scale · (U (D x + d) + u)."""
        up = self._up()
        if isinstance(host, nn.Conv2d):
            hidden = mix_channels(x, self.down, self.down_bias)
            return x + self.scale * mix_channels(hidden, up, self.up_bias)
        return x + self.scale * F.linear(F.linear(x, self.down, self.down_bias), up, self.up_bias)

    def change_weight(self, weight: Tensor) -> Tensor:
        """Return weight (I + scale · U D), for the weight of a linear layer or a convolution."""
        narrowed = torch.einsum("oi...,ir->or...", weight, self._up())
        return weight + self.scale * torch.einsum("or...,ri->oi...", narrowed, self.down)

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the host's effective weight and bias with the adapter merged into them."""
        merged = self.change_weight(weight)
        if self.down_bias is None or self.up_bias is None:
            return merged, bias
        shift = weight.flatten(1) @ (self.scale * (self._up() @ self.down_bias + self.up_bias))
        return merged, shift if bias is None else bias + shift

    def _up(self) -> Tensor:
        """Return U as a full matrix [C, rank]."""
        full: Tensor = torch.block_diag(*self.up.chunk(self.groups))  # type: ignore[no-untyped-call]
        return full


def _pads(module: nn.Module) -> bool:
    """Return whether the module may pad its input with zeros, which an adapter before it would not see."""
    return isinstance(module, nn.Conv2d) and (module.kernel_size != (1, 1) or module.padding not in ((0, 0), 0))
