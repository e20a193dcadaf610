"""Convpass: a convolutional bypass parallel to attention and MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import activation, pointwise, zero_
from visionadapt.adapters.sublayers import mlps, of_kind
from visionadapt.core.sites import Layout, Site
from visionadapt.errors import AdapterError
from visionadapt.system.noise import DropPath


@dataclass(frozen=True)
class Convpass(Placement):
    """A convolutional bypass parallel to attention and MLP: y' = y + scale · (U φ(conv₃ₓ₃(φ(D x + d))) + u).

    Jie & Deng, "Convolutional Bypasses Are Better Vision Transformer Adapters", 2022 (arXiv:2207.07039), equation 5.
    Patch tokens are arranged as the square map that they come from; each class or register token is convolved on its
    own, as a 1×1 map. The convolution starts as the identity and U at zero.

    Trainable parameters per sublayer over C channels: 2·rank·C + rank + C, and 9·rank² + rank for the convolution.

    Attributes:
        rank: width of the bypass, at least 1.
        scale: fixed factor on the change.
        activation: gelu, relu, silu or identity.
        drop_path: probability in [0, 1) that the adapter is skipped for a sample in training.

    Raises:
        AdapterError: in the forward, the patch tokens do not form a square.
    """

    needs: ClassVar[str] = "an attention, or an MLP that is a module of its own"
    learning_rate: ClassVar[float] = 1e-3  # the authors' own; the default backbone cannot take it

    rank: int = 8
    scale: float = 1.0
    activation: str = "gelu"
    drop_path: float = 0.0

    def refuse(self, site: Site) -> str:
        if site.called and isinstance(site.module, nn.MultiheadAttention):
            return "its tokens are not known to come from an image, so they form no map"
        return super().refuse(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every attention, and every MLP that is a module of its own."""
        return [*of_kind(sites, "attention"), *mlps(sites)]

    def build(self, site: Site) -> nn.Module:
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
        zero_(self.down.bias, self.up.weight, self.up.bias, self.convolution.bias, self.convolution.weight)
        with torch.no_grad():
            self.convolution.weight[:, :, 1, 1] = torch.eye(settings.rank)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y + scale · up(act(conv(act(down(x)))))."""
        hidden: Tensor = self.activation(self.down(x))
        change: Tensor = self.drop_path(self.up(self.activation(self._convolved(hidden))))
        return y + self.scale * change

    def _convolved(self, hidden: Tensor) -> Tensor:
        if self.layout == "NCHW":
            maps: Tensor = self.convolution(hidden)
            return maps
        if self.layout == "NHWC" or hidden.dim() == 4:
            return self.convolution(hidden.movedim(-1, 1)).movedim(1, -1)  # type: ignore[no-any-return]
        return self._convolved_tokens(hidden)

    def _convolved_tokens(self, hidden: Tensor) -> Tensor:
        """Convolve tokens [N, L, C]: the patches as a square map, each prefix token on its own."""
        samples, length, channels = hidden.shape
        patches = length - self.prefix_tokens
        side = math.isqrt(patches)
        if side * side != patches:
            raise AdapterError(
                f"{patches} tokens after {self.prefix_tokens} prefix tokens form no square map; "
                f"pass sites with the right prefix_tokens"
            )
        square = hidden[:, self.prefix_tokens :].transpose(1, 2).reshape(samples, channels, side, side)
        convolved = self.convolution(square).flatten(2).transpose(1, 2)
        alone = nn.functional.linear(
            hidden[:, : self.prefix_tokens], self.convolution.weight[:, :, 1, 1], self.convolution.bias
        )
        return torch.cat([alone, convolved], dim=1)
