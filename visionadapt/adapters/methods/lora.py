"""LoRA: a low-rank change of a linear layer's or a convolution's weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.host_weight import channel_axis, own_convolution, refuse_weight, takes_weight, weight_of
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import require
from visionadapt.adapters.slot import Convolve, Point
from visionadapt.core.sites import Site
from visionadapt.system.noise import Dropout


@dataclass(frozen=True)
class LoRA(Placement):
    """A low-rank change of the weight: W + scale · B A, with A [rank, fan-in] and B [rows, rank].

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, equation 3; scale is alpha / rank, or
    alpha / √rank with `rank_stabilised` (Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023). B starts at zero.
    A convolution's weight is taken as the matrix [output channels, input channels / groups · height · width]. Where
    the parent never calls the module, its weight itself is changed.

    Trainable parameters a place: rank · (fan-in + output channels), for each of the chosen rows of a fused weight.

    Attributes:
        rank: rank of the change.
        alpha: numerator of the scale.
        rows: which parts of a fused attention weight are changed, out of q, k and v.
        rank_stabilised: divide alpha by √rank rather than by rank.
        dropout: share of the input's elements that the change does not see in training.
    """

    needs: ClassVar[str] = "a linear layer or a convolution inside the blocks"
    learning_rate: ClassVar[float] = 3e-3  # chosen on validation parts: docs/measurements/defaults.md

    rank: int = 8
    alpha: float = 8.0
    rows: str = "qv"
    rank_stabilised: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank={self.rank} is too small; LoRA needs rank 1 or more")
        require(self.alpha > 0, f"alpha={self.alpha} must be above 0")
        require(bool(self.rows) and set(self.rows) <= set("qkv"), f"rows={self.rows!r} must be made of q, k and v")
        require(0 <= self.dropout < 1, f"dropout={self.dropout} must be 0 or more and below 1")

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if site.rows and not self.rows_of(site):
            return f"it has the rows {', '.join(site.rows)}, and rows={self.rows} names none of them"
        if self.dropout > 0 and takes_weight(site):
            return "its parent reads its weight and never calls it, so dropout has no input to act on; use dropout=0"
        return refuse_weight(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Attention's q, k, v weights where the model tells them apart, else every projection inside the blocks."""
        attention = [site for site in sites if self.rows_of(site)]
        if attention:
            return attention
        return [site for site in sites if site.kind in ("linear", "conv") and site.block is not None]

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
        return LoRALayer(self, site)

    def rows_of(self, site: Site) -> dict[str, slice]:
        """The chosen rows of a fused weight, in the weight's own order."""
        named = {name: rows for name, rows in site.rows.items() if name in self.rows}
        return dict(sorted(named.items(), key=lambda item: item[1].start or 0))


class LoRALayer(nn.Module):
    """The weights of `LoRA` at one site: `down` A [rank, fan-in …] and `up` B [rows, rank], by name of the rows."""

    def __init__(self, settings: LoRA, site: Site) -> None:
        super().__init__()
        self.points: tuple[Point, ...] = ("weight",) if takes_weight(site) else ("output",)
        self.scaling = settings.scaling
        self.convolve: Convolve = site.convolve or own_convolution
        self.dropout = Dropout(settings.dropout)
        shape = weight_of(site.module).shape
        self.slices = settings.rows_of(site) or {"all": slice(0, shape[0])}
        self.down = nn.ParameterDict({name: torch.empty(settings.rank, *shape[1:]) for name in self.slices})
        self.up = nn.ParameterDict(
            {name: torch.zeros(rows.stop - (rows.start or 0), settings.rank) for name, rows in self.slices.items()}
        )
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """y + scale · B A x, on the chosen rows."""
        x = self.dropout(x)
        return self._add(y, {name: self._change(name, x, host) for name in self.slices}, channel_axis(host))

    def change_weight(self, weight: Tensor) -> Tensor:
        """weight + scale · B A, in the weight's shape."""
        return self._add(weight, {name: self.delta(name).to(weight.dtype) for name in self.slices}, 0)

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The host's effective weight and bias with the change folded in."""
        return self.change_weight(weight), bias

    def delta(self, name: str) -> Tensor:
        """scale · B A for one name of rows, in the shape of those rows of the weight."""
        down, up = self.down[name], self.up[name]
        change: Tensor = self.scaling * (up @ down.flatten(1))
        return change.view(up.shape[0], *down.shape[1:])

    def _change(self, name: str, x: Tensor, host: nn.Module) -> Tensor:
        down, up = self.down[name], self.scaling * self.up[name]
        if not isinstance(host, nn.Conv2d):
            return F.linear(F.linear(x, down), up)
        if host.groups > 1:
            return self.convolve(host, x, self.delta(name))
        return F.conv2d(self.convolve(host, x, down), up[:, :, None, None])

    def _add(self, whole: Tensor, changes: dict[str, Tensor], axis: int) -> Tensor:
        """The whole with each change added to its rows along an axis."""
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
