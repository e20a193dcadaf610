"""SSF: a learned factor and shift per channel after every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import refuse_scaling, scale_rows
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import per_channel
from visionadapt.adapters.sublayers import of_kind
from visionadapt.core.sites import Layout, Site


@dataclass(frozen=True)
class SSF(Placement):
    """A factor and a shift per channel after every linear layer, convolution and norm: y' = γ ⊙ y + β.

    Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning", NeurIPS 2022,
    equation 3. γ starts at 1 and β at 0, so the model starts as pretrained (the paper draws both with standard
    deviation 0.02). Both merge into the layer before them.

    Trainable parameters per site with C output channels: 2·C, or C after a norm without bias.
    """

    needs: ClassVar[str] = "a linear layer, a convolution or a norm"
    learning_rate: ClassVar[float] = 1e-2  # chosen on validation splits: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        if site.kind == "norm" and site.called:
            return _refuse_norm(site.module)
        return refuse_scaling(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every linear layer, convolution and norm, inside and outside of blocks."""
        return of_kind(sites, "linear", "conv", "norm")

    def build(self, site: Site) -> nn.Module:
        has_bias = site.kind != "norm" or getattr(site.module, "bias", None) is not None
        return SSFLayer(site.dim, site.layout, has_bias)


class SSFLayer(nn.Module):
    """The weights of `SSF` at one site: `scale` [C] and `shift` [C]."""

    def __init__(self, dim: int, layout: Layout, shift: bool) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim)) if shift else None

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return scale ⊙ y + shift; the host and its input x are not used."""
        y = y * per_channel(self.scale, self.layout, y.dim())
        return y if self.shift is None else y + per_channel(self.shift, self.layout, y.dim())

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the host's effective weight and bias with factor and shift merged into them."""
        bias = self.shift if bias is None else bias * self.scale + (0 if self.shift is None else self.shift)
        return scale_rows(weight, self.scale), bias


def _refuse_norm(module: nn.Module) -> str:
    """Explain why a norm's output is not an affine function of a weight that could change; empty if it is."""
    if not isinstance(getattr(module, "weight", None), Tensor):
        return "it is a norm without a weight"
    if not isinstance(getattr(module, "act", nn.Identity()), nn.Identity):
        return "it is a norm with an activation inside, so its weight cannot scale its output"
    return ""
