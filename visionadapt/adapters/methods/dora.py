"""DoRA: LoRA for a weight's direction, and a learned length for each of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionadapt.adapters.host_weight import channel_axis, effective_weight, whole_rows
from visionadapt.adapters.methods.lora import LoRA, LoRALayer
from visionadapt.adapters.pointwise import per_channel
from visionadapt.core.sites import Layout, Site


@dataclass(frozen=True)
class DoRA(LoRA):
    """Length and direction apart: W' = m ⊙ (W + scale · B A) / ‖W + scale · B A‖, the norm taken over each output row.

    Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, equation 5; the norm is a constant for the
    gradient (section 4.3). m starts at ‖W‖ and B at zero. Of a standardised convolution the standardised weight counts.
    A row of zeros, as pretrained convolutions have some, has no direction and stays as it is.

    Trainable parameters a place: those of `LoRA`, and one for each of the chosen output rows.
    """

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if self.dropout > 0:
            return (
                "with dropout the change that a row's length is taken of differs from the one that acts; use dropout=0"
            )
        return super().refuse(site)

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
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
        """g ⊙ (W + scale · B A) x + bias on the chosen rows, with g = m / ‖W + scale · B A‖."""
        axis = channel_axis(host)
        weight = effective_weight(host, self.effective_weight)
        growth = self._growth(weight)
        layout: Layout = "NCHW" if axis == 1 else "NLC"
        whole = per_channel(whole_rows(growth, self.slices, weight.shape[0], fill=1.0), layout)
        bias = host.bias
        bare = y if bias is None else y - per_channel(bias, layout)  # type: ignore[arg-type]
        changes = {name: self._change(name, x, host) * per_channel(growth[name], layout) for name in self.slices}
        return self._add(y + (whole - 1) * bare, changes, axis)

    def change_weight(self, weight: Tensor) -> Tensor:
        """g ⊙ (weight + scale · B A), in the weight's shape."""
        growth = whole_rows(self._growth(weight), self.slices, weight.shape[0], fill=1.0)
        return super().change_weight(weight) * growth.view(-1, *[1] * (weight.dim() - 1)).to(weight.dtype)

    def _growth(self, weight: Tensor) -> dict[str, Tensor]:
        norms = {name: _row_norm((weight[rows] + self.delta(name)).detach()) for name, rows in self.slices.items()}
        return {name: self.length[name] / torch.where(norm > 0, norm, 1) for name, norm in norms.items()}


def _row_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norm
