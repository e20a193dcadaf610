"""DoRA: LoRA for the direction of a weight, and a learned length for each of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import (
    effective_weight,
    has_own_forward,
    output_axis,
    output_layout,
    scale_rows,
    takes_weight,
    whole_rows,
)
from visionadapt.adapters.methods.lora import LoRA, LoRALayer
from visionadapt.adapters.pointwise import per_channel
from visionadapt.adapters.slot import plain_tensor
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class DoRA(LoRA):
    """A change of length and direction: W' = m ⊙ (W + scale · B A) / ‖W + scale · B A‖, normalised per output row.

    Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, equation 5; the norm is a constant for the
    gradient (section 4.3). m starts at ‖W‖ and B at zero. W of a standardised convolution is the standardised weight.
    A row of zeros, as in some pretrained convolutions, has no direction and does not change.

    Trainable parameters per site: those of `LoRA`, and one for each of the chosen output rows.
    """

    def refuse(self, site: Site) -> str:
        if self.dropout > 0:
            return "with dropout, the change that a row is normalised by differs from the one that acts; use dropout=0"
        if takes_weight(site) and has_own_forward(site.module):
            return "its forward may normalise its weight, so that a length of its rows would not act"
        return super().refuse(site)

    def build(self, site: Site) -> nn.Module:
        return DoRALayer(self, site)


class DoRALayer(LoRALayer):
    """The weights of `DoRA` at one site: those of `LoRALayer`, and `length` [rows] by name of the rows."""

    needs_own_weight = True

    def __init__(self, settings: DoRA, site: Site) -> None:
        super().__init__(settings, site)
        self.effective_weight = site.effective_weight
        weight = effective_weight(site.module, site.effective_weight).detach().to("cpu")
        self.length = nn.ParameterDict({name: _row_norm(weight[rows]) for name, rows in self.slices.items()})

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return g ⊙ (W + scale · B A) x + bias on the chosen rows, with g = m / ‖W + scale · B A‖."""
        layout = output_layout(host)
        weight = effective_weight(host, self.effective_weight)
        growth = self._growth(weight)
        whole = per_channel(whole_rows(growth, self.slices, weight.shape[0], fill=1.0), layout)
        bias = plain_tensor(host, "bias")
        bare = y if bias is None else y - per_channel(bias, layout)
        changes = {name: self._change(name, x, host) * per_channel(growth[name], layout) for name in self.slices}
        return self._add(y + (whole - 1) * bare, changes, output_axis(host))

    def change_weight(self, weight: Tensor) -> Tensor:
        """Return g ⊙ (weight + scale · B A), in the weight's shape."""
        growth = whole_rows(self._growth(weight), self.slices, weight.shape[0], fill=1.0)
        return scale_rows(super().change_weight(weight), growth.to(weight.dtype))

    def _growth(self, weight: Tensor) -> dict[str, Tensor]:
        norms = {name: _row_norm((weight[rows] + self.delta(name)).detach()) for name, rows in self.slices.items()}
        return {name: self.length[name] / torch.where(norm > 0, norm, 1) for name, norm in norms.items()}


def _row_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norm
