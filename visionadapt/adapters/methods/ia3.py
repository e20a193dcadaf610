"""(IA)³: a learned factor per channel on keys, values and the MLP's inner units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import (
    chosen_rows,
    output_layout,
    refuse_rows,
    refuse_scaling,
    row_count,
    scale_rows,
    whole_rows,
)
from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import input_channels, per_channel
from visionadapt.adapters.slot import Point
from visionadapt.adapters.sublayers import closing_projections, projections
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class IA3(Placement):
    """A factor per channel on attention's keys and values and on the MLP's inner units.

    Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS 2022,
    section 3.3: softmax(Q (l_k ⊙ K)ᵀ / √d) (l_v ⊙ V), and (l_ff ⊙ φ(W₁ x)) W₂. Factors start at 1. A projection that
    narrows (W₂) takes its factor on its input, any other on its output. Where the model does not separate keys and
    values, every projection inside the blocks gets one.

    Trainable parameters: 2·C per fused attention; the input channels of a projection that narrows, else its output
    channels.

    Attributes:
        rows: the parts of a fused attention weight to scale: one or more of q, k and v.
    """

    needs: ClassVar[str] = "a linear layer or a convolution inside the blocks"

    rows: str = "kv"

    def refuse(self, site: Site) -> str:
        return refuse_rows(site, self.rows) or refuse_scaling(site)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return fused q, k, v and the last projections of the MLPs; without fused ones, all projections in blocks."""
        fused = [site for site in sites if chosen_rows(site, self.rows)]
        return [*fused, *closing_projections(sites, mlp_only=True)] if fused else projections(sites)

    def build(self, site: Site) -> nn.Module:
        rows = chosen_rows(site, self.rows)
        return IA3Layer(site, rows, on_input=not rows and input_channels(site) > site.dim)


class IA3Layer(nn.Module):
    """The weights of `IA3` at one site: `factor`, [C] or by name of the rows."""

    def __init__(self, site: Site, rows: dict[str, slice], on_input: bool) -> None:
        super().__init__()
        self.points: tuple[Point, ...] = ("input",) if on_input else ("output",)
        self.on_input = on_input
        self.slices = rows or {"all": slice(0, input_channels(site) if on_input else site.dim)}
        self.channels = self.slices["all"].stop if "all" in self.slices else site.dim
        self.factor = nn.ParameterDict({name: torch.ones(row_count(rows)) for name, rows in self.slices.items()})

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return factor ⊙ y; the input x is not used."""
        return self.change_input(y, host)

    def change_input(self, x: Tensor, host: nn.Module) -> Tensor:
        """Return factor ⊙ x."""
        return x * per_channel(self._whole(), output_layout(host))

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the host's effective weight and bias with the factor merged into them."""
        factor = self._whole()
        if not self.on_input:
            return scale_rows(weight, factor), None if bias is None else bias * factor
        groups = factor.shape[0] // weight.shape[1]
        by_group = weight.view(groups, -1, *weight.shape[1:]) * factor.view(
            groups, 1, weight.shape[1], *[1] * (weight.dim() - 2)
        )
        return by_group.view_as(weight), bias

    def _whole(self) -> Tensor:
        """Return the factor of every channel: 1 where no row was chosen."""
        return whole_rows(dict(self.factor.items()), self.slices, self.channels, fill=1.0)
