"""LoRA: a low-rank change of the weight of a linear layer or a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.host_weight import (
    chosen_rows,
    output_axis,
    own_convolution,
    refuse_rows,
    refuse_weight,
    row_count,
    takes_weight,
    weight_of,
    weight_points,
)
from visionadapt.adapters.placement import Placement, require
from visionadapt.adapters.pointwise import is_pointwise, mix_channels
from visionadapt.adapters.slot import Convolve, Point
from visionadapt.adapters.sublayers import projections
from visionadapt.core.sites import Site
from visionadapt.system.noise import Dropout


@dataclass(frozen=True)
class LoRA(Placement):
    """A low-rank change of the weight: W + scale · B A, with A [rank, fan-in] and B [rows, rank].

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, equation 3; scale is alpha / rank, or
    alpha / √rank with `rank_stabilised` (Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023). B starts at zero.
    A convolution's weight counts as the matrix [output channels, input channels / groups · height · width]; grouped
    convolutions, whose weights are small and slow to change, are left out unless `where` or `types` names them. Where
    other modules read the weight without calling the host, they get the changed one.

    Trainable parameters per site: rank · (fan-in + output channels); of a fused weight, for each of the chosen parts.

    Attributes:
        rank: rank of the change, at least 1.
        alpha: numerator of the scale, above 0.
        rows: the parts of a fused attention weight to change: one or more of q, k and v.
        rank_stabilised: divide alpha by √rank rather than by rank.
        dropout: probability in [0, 1) that an element of the change's input is zeroed in training.
    """

    needs: ClassVar[str] = "a linear layer or a convolution inside the blocks"
    learning_rate: ClassVar[float] = 6e-3  # how it was chosen: docs/measurements/defaults.md

    rank: int = 8
    alpha: float = 8.0
    rows: str = "qv"
    rank_stabilised: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha > 0, f"alpha={self.alpha} must be above 0")

    @property
    def scaling(self) -> float:
        """The factor on B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def refuse(self, site: Site) -> str:
        reason = refuse_rows(site, self.rows)
        if not reason and self.dropout > 0 and takes_weight(site):
            return "its parent reads its weight and never calls it, so dropout has no input; use dropout=0"
        return reason or refuse_weight(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return attention's fused q, k, v weights; else the projections inside the blocks that mix all channels."""
        inside = projections(sites)
        mixing = [site for site in inside if getattr(site.module, "groups", 1) == 1]
        return [site for site in sites if chosen_rows(site, self.rows)] or mixing or inside

    def build(self, site: Site) -> nn.Module:
        return LoRALayer(self, site)


class LoRALayer(nn.Module):
    """The weights of `LoRA` at one site: `down` A [rank, fan-in …] and `up` B [rows, rank], by name of the rows."""

    def __init__(self, settings: LoRA, site: Site) -> None:
        super().__init__()
        self.points: tuple[Point, ...] = weight_points(site, "output")
        self.scaling = settings.scaling
        self.convolve: Convolve = site.convolve or own_convolution
        self.dropout = Dropout(settings.dropout)
        shape = weight_of(site.module).shape
        self.slices = chosen_rows(site, settings.rows) or {"all": slice(0, shape[0])}
        self.down = nn.ParameterDict({name: torch.empty(settings.rank, *shape[1:]) for name in self.slices})
        self.up = nn.ParameterDict(
            {name: torch.zeros(row_count(rows), settings.rank) for name, rows in self.slices.items()}
        )
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y + scale · B A x, on the chosen rows."""
        x = self.dropout(x)
        return self._add(y, {name: self._change(name, x, host) for name in self.slices}, output_axis(host))

    def change_weight(self, weight: Tensor) -> Tensor:
        """Return weight + scale · B A, in the weight's shape."""
        return self._add(weight, {name: self.delta(name).to(weight.dtype) for name in self.slices}, 0)

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the host's effective weight and bias with the change merged into them."""
        return self.change_weight(weight), bias

    def delta(self, name: str) -> Tensor:
        """Return scale · B A for one name of rows, in the shape of those rows of the weight."""
        down, up = self.down[name], self.up[name]
        change: Tensor = self.scaling * (up @ down.flatten(1))
        return change.view(up.shape[0], *down.shape[1:])

    def _change(self, name: str, x: Tensor, host: nn.Module) -> Tensor:
        down, up = self.down[name], self.scaling * self.up[name]
        if not isinstance(host, nn.Conv2d):
            return F.linear(F.linear(x, down), up)
        if host.groups > 1:
            return self.convolve(host, x, self.delta(name))
        alone = self.convolve is own_convolution and is_pointwise(host)
        return mix_channels(mix_channels(x, down.flatten(1)) if alone else self.convolve(host, x, down), up)

    def _add(self, whole: Tensor, changes: dict[str, Tensor], axis: int) -> Tensor:
        """Add each change to its rows of the whole along an axis."""
        if "all" in changes:
            return whole + changes["all"]
        parts, done = [], 0
        for name, rows in self.slices.items():
            start = rows.start or 0
            parts.append(whole.narrow(axis, done, start - done))
            parts.append(whole.narrow(axis, start, rows.stop - start) + changes[name])
            done = rows.stop
        parts.append(whole.narrow(axis, done, whole.shape[axis] - done))
        return torch.cat([part for part in parts if part.shape[axis] > 0], dim=axis)
