"""SSF and (IA)³: factors, and shifts, on channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import channel_axis, refuse_weight, takes_weight, whole_rows
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import input_channels, per_channel, require
from visionadapt.adapters.slot import Point
from visionadapt.adapters.sublayers import closing_projections
from visionadapt.core.sites import Layout, Site


@dataclass(frozen=True)
class SSF(Placement):
    """A factor and a shift per channel behind every linear layer, convolution and norm: y' = γ ⊙ y + β.

    Lian et al., "Scaling & Shifting Your Features", NeurIPS 2022, equation 3. γ starts at 1 and β at 0, so that the
    model starts as it was pretrained (the paper draws both with deviation 0.02). Both fold into the layer in front.

    Trainable parameters a place with C output channels: 2·C, or C behind a norm that has no bias.
    """

    needs: ClassVar[str] = "a linear layer, a convolution or a norm"
    learning_rate: ClassVar[float] = 1e-2  # chosen on validation parts: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if takes_weight(site):
            return "its parent reads its weight and adds the bias itself, so that its output cannot be scaled"
        return refuse_norm(site.module) if site.kind == "norm" else refuse_weight(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Every linear layer, convolution and norm, outside of blocks too."""
        return [site for site in sites if site.kind in ("linear", "conv", "norm")]

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
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
        """scale ⊙ y + shift; the host and its input x are not needed."""
        y = y * per_channel(self.scale, self.layout)
        return y if self.shift is None else y + per_channel(self.shift, self.layout)

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The host's effective weight and bias with factor and shift folded in."""
        bias = self.shift if bias is None else bias * self.scale + (0 if self.shift is None else self.shift)
        return weight * self.scale.view(-1, *[1] * (weight.dim() - 1)), bias


@dataclass(frozen=True)
class IA3(Placement):
    """A factor per channel on attention's keys and values and on the MLP's inner units.

    Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS 2022,
    section 3.3: softmax(Q (l_k ⊙ K)ᵀ / √d) (l_v ⊙ V), and (l_ff ⊙ φ(W₁ x)) W₂. Factors start at 1. A projection that
    narrows (W₂) takes its factor on its input, any other on its output. Where the model does not tell keys and values
    apart, every projection inside the blocks gets one.

    Trainable parameters: 2·C a fused attention, and the input channels of a projection that narrows, else its output
    channels.
    """

    needs: ClassVar[str] = "a linear layer or a convolution inside the blocks"

    rows: str = "kv"

    def __post_init__(self) -> None:
        require(bool(self.rows) and set(self.rows) <= set("qkv"), f"rows={self.rows!r} must be made of q, k and v")

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if site.rows and not set(self.rows) & set(site.rows):
            return f"it has the rows {', '.join(site.rows)}, and rows={self.rows} names none of them"
        if takes_weight(site):
            return "its parent reads its weight and adds the bias itself, so that its output cannot be scaled"
        return refuse_weight(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Fused q, k, v and the projections that close the MLPs; without such, every projection inside the blocks."""
        fused = [site for site in sites if set(self.rows) & set(site.rows)]
        if fused:
            return [*fused, *closing_projections(sites, mlp_only=True)]
        return [site for site in sites if site.kind in ("linear", "conv") and site.block is not None]

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
        rows = {name: rows for name, rows in site.rows.items() if name in self.rows}
        return IA3Layer(site, rows, on_input=not rows and input_channels(site) > site.dim)


class IA3Layer(nn.Module):
    """The weights of `IA3` at one site: `factor`, [C] or by name of the rows."""

    def __init__(self, site: Site, rows: dict[str, slice], on_input: bool) -> None:
        super().__init__()
        self.points: tuple[Point, ...] = ("input",) if on_input else ("output",)
        self.on_input = on_input
        self.slices = rows or {"all": slice(0, input_channels(site) if on_input else site.dim)}
        self.channels = self.slices["all"].stop if "all" in self.slices else site.dim
        self.factor = nn.ParameterDict(
            {name: torch.ones(rows.stop - (rows.start or 0)) for name, rows in self.slices.items()}
        )

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """factor ⊙ y; the input x is not needed."""
        return y * per_channel(self._whole(), "NCHW" if channel_axis(host) == 1 else "NLC")

    def change_input(self, x: Tensor, host: nn.Module) -> Tensor:
        """factor ⊙ x."""
        return x * per_channel(self._whole(), "NCHW" if channel_axis(host) == 1 else "NLC")

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The host's effective weight and bias with the factor folded in."""
        factor = self._whole()
        if not self.on_input:
            return weight * factor.view(-1, *[1] * (weight.dim() - 1)), None if bias is None else bias * factor
        groups = factor.shape[0] // weight.shape[1]
        by_group = weight.view(groups, -1, *weight.shape[1:]) * factor.view(
            groups, 1, weight.shape[1], *[1] * (weight.dim() - 2)
        )
        return by_group.view_as(weight), bias

    def _whole(self) -> Tensor:
        """The factor of every channel: 1 where no row was chosen."""
        return whole_rows(dict(self.factor.items()), self.slices, self.channels, fill=1.0)


def refuse_norm(module: nn.Module) -> str:
    """Why a norm's output is not an affine function of a weight that could be changed; empty if it is."""
    if not isinstance(getattr(module, "weight", None), Tensor):
        return "it is a norm without a weight"
    if not isinstance(getattr(module, "act", nn.Identity()), nn.Identity):
        return "it is a norm with an activation inside, so that what it returns cannot be folded into its weight"
    return ""
