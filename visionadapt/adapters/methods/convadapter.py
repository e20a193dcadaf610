"""Conv-Adapter: a narrow depthwise-separable convolution parallel to each spatial convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import own_convolution, refuse_weight
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import activation, mix_channels
from visionadapt.adapters.slot import Convolve
from visionadapt.core.sites import Site
from visionadapt.system.noise import DropPath


@dataclass(frozen=True)
class ConvAdapter(Placement):
    """A bypass of a convolution: y' = y + α ⊙ P φ(K ∗ x).

    Chen et al., "Conv-Adapter: Exploring Parameter Efficient Transfer Learning for ConvNets", CVPR Workshops 2024,
    equation 2, in its convolution-parallel form. K has the host's kernel size, stride, dilation and padding and sums
    `reduction` channels into one; P is 1×1. α starts at 1 and P at zero.

    Trainable parameters per k×k convolution from I to O channels: I·k² + (I / reduction)·O + O.

    Attributes:
        reduction: number of input channels that K sums into one, at least 1; lowered to a divisor of them if needed.
        activation: gelu, relu, silu or identity.
        drop_path: probability in [0, 1) that the adapter is skipped for a sample in training.
    """

    needs: ClassVar[str] = "a convolution with a kernel above 1×1 inside the blocks"
    learning_rate: ClassVar[float] = 1e-3  # did well on validation splits: docs/measurements/defaults.md

    reduction: int = 4
    activation: str = "relu"
    drop_path: float = 0.0

    def refuse(self, site: Site) -> str:
        if not isinstance(site.module, nn.Conv2d):
            return "it is not a convolution"
        return super().refuse(site) or refuse_weight(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every convolution inside the blocks with a kernel above 1×1."""
        return [
            site
            for site in sites
            if isinstance(site.module, nn.Conv2d) and site.block is not None and max(site.module.kernel_size) > 1
        ]

    def build(self, site: Site) -> nn.Module:
        return ConvAdapterLayer(self, site)


class ConvAdapterLayer(nn.Module):
    """The weights of `ConvAdapter` at one site: `depthwise` [I, k, k], `pointwise` [O, I / reduction] and `scale` [O].

    K runs through the host's own convolution and shares its groups. A host group has s = I / groups inputs: if
    `reduction` is at most s, each filter sees `reduction` of them; else each filter sees all s, and the outputs of
    `reduction / s` filters are summed.
    """

    def __init__(self, settings: ConvAdapter, site: Site) -> None:
        super().__init__()
        host = cast(nn.Conv2d, site.module)
        share = host.in_channels // host.groups
        reduction = math.gcd(settings.reduction, host.in_channels)
        inner = math.gcd(reduction, share)
        outer = math.gcd(reduction // inner, host.groups) if inner == share else 1
        self.convolve: Convolve = site.convolve or own_convolution
        self.outer = outer
        self.activation = activation(settings.activation)
        self.depthwise = nn.Parameter(torch.empty(host.in_channels, *host.kernel_size))
        self.pointwise = nn.Parameter(torch.zeros(host.out_channels, host.in_channels // (inner * outer), 1, 1))
        self.scale = nn.Parameter(torch.ones(host.out_channels))
        self.drop_path = DropPath(settings.drop_path)
        self.mask: Tensor
        self.register_buffer("mask", _mask(host.in_channels, share, inner), persistent=False)
        nn.init.kaiming_uniform_(self.depthwise.view(-1, inner, *host.kernel_size), a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y + scale ⊙ P act(K ∗ x)."""
        filters, share, owned = self.mask.shape
        taps = self.depthwise.view(filters, owned, *self.depthwise.shape[1:])
        weight = torch.einsum("fso,fohw->fshw", self.mask, taps)
        hidden = self.convolve(host, x, weight.view(filters, share, *self.depthwise.shape[1:]))
        if self.outer > 1:
            hidden = hidden.view(hidden.shape[0], -1, self.outer, *hidden.shape[2:]).sum(2)
        change = mix_channels(self.activation(hidden), self.pointwise.flatten(1))
        dropped: Tensor = self.drop_path(change * self.scale.view(-1, 1, 1))
        return y + dropped


def _mask(channels: int, share: int, inner: int) -> Tensor:
    """Make [filters, share, inner]: 1 where a filter's own j-th tap is on the i-th input of its host group."""
    filters = channels // inner
    mask = torch.zeros(filters, share, inner)
    for index in range(filters):
        start = index * inner % share
        mask[index, start : start + inner] = torch.eye(inner)
    return mask
