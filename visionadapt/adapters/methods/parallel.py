"""Adapters beside a sublayer: AdaptFormer beside the MLP, Convpass beside attention and MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.drop_path import DropPath
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import activation, pointwise, require
from visionadapt.adapters.sublayers import attentions, mlps
from visionadapt.core.sites import Layout, Site
from visionadapt.errors import AdapterError
from visionadapt.system.noise import Dropout


@dataclass(frozen=True)
class AdaptFormer(Placement):
    """A bottleneck beside the MLP: y' = MLP(x) + scale · U relu(D x + d) + u, where x is what the MLP is given.

    Chen et al., "AdaptFormer", NeurIPS 2022, equations 2 and 3. D starts as in LoRA, U at zero.

    Trainable parameters an MLP over C channels: 2·rank·C + rank + C.

    Attributes:
        rank: width of the bottleneck.
        scale: fixed factor on the change.
        dropout: share of the bottleneck's units that are zeroed in training.
        drop_path: share of samples for which the adapter is skipped in training.
    """

    needs: ClassVar[str] = "an MLP that is a module of its own"
    learning_rate: ClassVar[float] = 1e-3  # a common choice for ViTs; the default backbone cannot take it

    rank: int = 64
    scale: float = 0.1
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank={self.rank} is too small; a bottleneck needs rank 1 or more")
        require(0 <= self.dropout < 1, f"dropout={self.dropout} must be 0 or more and below 1")
        require(0 <= self.drop_path < 1, f"drop_path={self.drop_path} must be 0 or more and below 1")

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        return "" if site.called else "its parent reads its weight and never calls it"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Every MLP that is a module of its own."""
        return mlps(sites)

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
        return AdaptFormerLayer(self, site)


class AdaptFormerLayer(nn.Module):
    """The weights of `AdaptFormer` at one site, which takes and returns the same number of channels."""

    def __init__(self, settings: AdaptFormer, site: Site) -> None:
        super().__init__()
        self.scale = settings.scale
        self.down = pointwise(site.layout, site.dim, settings.rank)
        self.activation = nn.ReLU()
        self.dropout = Dropout(settings.dropout)
        self.up = pointwise(site.layout, settings.rank, site.dim)
        self.drop_path = DropPath(settings.drop_path)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        _zero(self.down.bias, self.up.weight, self.up.bias)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """y + scale · up(relu(down(x)))."""
        change: Tensor = self.drop_path(self.up(self.dropout(self.activation(self.down(x)))))
        return y + self.scale * change


@dataclass(frozen=True)
class Convpass(Placement):
    """A convolutional bypass beside attention and MLP: y' = y + scale · U φ(conv₃ₓ₃(φ(D x))).

    Jie & Deng, "Convolutional Bypasses Are Better Vision Transformer Adapters", 2022, equation 5. Tokens are laid out
    as the square map that they come from; each class or register token is convolved by itself, as a map of one place.
    The convolution starts as the identity and U at zero.

    Trainable parameters a sublayer over C channels: 2·rank·C + rank + C, and 9·rank² + rank for the convolution.

    Attributes:
        rank: width of the bottleneck.
        scale: fixed factor on the change.
        activation: gelu, relu, silu or identity.
        drop_path: share of samples for which the adapter is skipped in training.
    """

    needs: ClassVar[str] = "an attention, or an MLP that is a module of its own"
    learning_rate: ClassVar[float] = 1e-3  # the authors' own; the default backbone cannot take it

    rank: int = 8
    scale: float = 1.0
    activation: str = "gelu"
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank={self.rank} is too small; a bottleneck needs rank 1 or more")
        require(0 <= self.drop_path < 1, f"drop_path={self.drop_path} must be 0 or more and below 1")
        activation(self.activation)

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if not site.called:
            return "its parent reads its weight and never calls it"
        if isinstance(site.module, nn.MultiheadAttention):
            return "its tokens come from no picture as far as is known, so that they form no map"
        return ""

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Every attention, and every MLP that is a module of its own."""
        return [*attentions(sites), *mlps(sites)]

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
        return ConvpassLayer(self, site)


class ConvpassLayer(nn.Module):
    """The weights of `Convpass` at one site, which takes and returns the same number of channels."""

    def __init__(self, settings: Convpass, site: Site) -> None:
        super().__init__()
        self.scale = settings.scale
        self.layout: Layout = site.layout
        self.prefix_tokens = site.prefix_tokens
        self.down = pointwise(site.layout, site.dim, settings.rank)
        self.activation = activation(settings.activation)
        self.convolution = nn.Conv2d(settings.rank, settings.rank, 3, padding=1)
        self.up = pointwise(site.layout, settings.rank, site.dim)
        self.drop_path = DropPath(settings.drop_path)
        nn.init.xavier_uniform_(self.down.weight)
        _zero(self.down.bias, self.up.weight, self.up.bias, self.convolution.bias, self.convolution.weight)
        with torch.no_grad():
            self.convolution.weight[:, :, 1, 1] = torch.eye(settings.rank)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """y + scale · up(act(conv(act(down(x)))))."""
        hidden: Tensor = self.activation(self.down(x))
        change: Tensor = self.drop_path(self.up(self.activation(self._convolved(hidden))))
        return y + self.scale * change

    def _convolved(self, hidden: Tensor) -> Tensor:
        if self.layout == "NCHW":
            maps: Tensor = self.convolution(hidden)
            return maps
        if self.layout == "NHWC":
            return self.convolution(hidden.movedim(-1, 1)).movedim(1, -1)  # type: ignore[no-any-return]
        return self._convolved_tokens(hidden)

    def _convolved_tokens(self, hidden: Tensor) -> Tensor:
        """Tokens [N, L, C]: the last L - prefix of them as a square map, each of the others by itself."""
        samples, length, channels = hidden.shape
        patches = length - self.prefix_tokens
        side = math.isqrt(patches)
        if side * side != patches:
            raise AdapterError(
                f"{patches} tokens behind {self.prefix_tokens} others are no square map; give sites with prefix_tokens"
            )
        square = hidden[:, self.prefix_tokens :].transpose(1, 2).reshape(samples, channels, side, side)
        convolved = self.convolution(square).flatten(2).transpose(1, 2)
        alone = nn.functional.linear(
            hidden[:, : self.prefix_tokens], self.convolution.weight[:, :, 1, 1], self.convolution.bias
        )
        return torch.cat([alone, convolved], dim=1)


def _zero(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None:
            nn.init.zeros_(tensor)
