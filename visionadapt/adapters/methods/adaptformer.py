"""AdaptFormer: a bottleneck parallel to the MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import pointwise, zero_
from visionadapt.adapters.sublayers import mlps
from visionadapt.core.sites import Site
from visionadapt.system.noise import Dropout, DropPath


@dataclass(frozen=True)
class AdaptFormer(Placement):
    """A bottleneck parallel to the MLP: y' = MLP(x) + scale · (U relu(D x + d) + u), where x is the MLP's input.

    Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022, equations 2
    and 3. D starts as in LoRA, U at zero.

    Trainable parameters per MLP over C channels: 2·rank·C + rank + C.

    Attributes:
        rank: width of the bottleneck, at least 1.
        scale: fixed factor on the change.
        dropout: probability in [0, 1) that a unit of the bottleneck is zeroed in training.
        drop_path: probability in [0, 1) that the adapter is skipped for a sample in training.
    """

    needs: ClassVar[str] = "an MLP that is a module of its own"
    learning_rate: ClassVar[float] = 1e-3  # a common choice for ViTs; the default backbone cannot take it

    rank: int = 64
    scale: float = 0.1
    dropout: float = 0.0
    drop_path: float = 0.0

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every MLP that is a module of its own."""
        return mlps(sites)

    def build(self, site: Site) -> nn.Module:
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
        zero_(self.down.bias, self.up.weight, self.up.bias)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y + scale · up(relu(down(x)))."""
        change: Tensor = self.drop_path(self.up(self.dropout(self.activation(self.down(x)))))
        return y + self.scale * change
