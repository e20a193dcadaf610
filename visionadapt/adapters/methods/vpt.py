"""Visual prompt tuning: learned tokens beside a picture's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import require
from visionadapt.adapters.slot import Point
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class VPT(Placement):
    """Learned tokens behind the class token: `deep` gives every block its own, shallow carries one set through all.

    Jia et al., "Visual Prompt Tuning", ECCV 2022, equations 4 to 8. Prompts stand in the chosen blocks and are taken
    out behind each (deep), or behind the last (shallow), so that nothing outside sees them. They start uniform within
    ±√(6 / (3·16² + C)). The model does not start as it was pretrained: prompts take part in attention at once.

    Trainable parameters: tokens·C, for each chosen block if deep.

    Attributes:
        tokens: number of prompts.
        deep: whether every block has prompts of its own.
        dropout: share of the prompts' elements that are zeroed in training.
    """

    needs: ClassVar[str] = "blocks"

    tokens: int = 10
    deep: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens={self.tokens} is too small; VPT needs 1 or more")
        require(0 <= self.dropout < 1, f"dropout={self.dropout} must be 0 or more and below 1")

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        if site.kind != "block":
            return "prompts stand in front of a whole block"
        if site.layout != "NLC":
            return f"its {site.layout} maps have no place for further tokens"
        return _fixed_positions(site.module)

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Every block."""
        return [site for site in sites if site.kind == "block"]

    def build(self, site: Site) -> nn.Module:
        """The layer for one block that has prompts of its own."""
        return PromptLayer(self, site, opens=True, closes=True)

    def build_together(self, sites: Sequence[Site]) -> list[nn.Module]:
        """The layers for all chosen blocks; where prompts are shallow, the first brings them in and the last out."""
        if self.deep:
            return [self.build(site) for site in sites]
        last = len(sites) - 1
        return [PromptLayer(self, site, opens=i == 0, closes=i == last) for i, site in enumerate(sites)]


class PromptLayer(nn.Module):
    """The prompts of `VPT` at one block: `prompts` [tokens, C], where the block brings them in."""

    def __init__(self, settings: VPT, site: Site, opens: bool, closes: bool) -> None:
        super().__init__()
        entry: tuple[Point, ...] = ("input",) if opens else ()
        exit_: tuple[Point, ...] = ("output",) if closes else ()
        self.points: tuple[Point, ...] = entry + exit_
        self.first = site.prefix_tokens
        self.tokens = settings.tokens
        self.dropout = nn.Dropout(settings.dropout)
        bound = math.sqrt(6 / (3 * 16**2 + site.dim))
        self.prompts = nn.Parameter(torch.empty(settings.tokens, site.dim).uniform_(-bound, bound)) if opens else None

    def change_input(self, x: Tensor, host: nn.Module) -> Tensor:
        """x [N, L, C] with the prompts behind its prefix tokens: [N, L + tokens, C]."""
        if self.prompts is None:
            return x
        prompts = self.dropout(self.prompts).to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([x[:, : self.first], prompts, x[:, self.first :]], dim=1)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """y [N, L + tokens, C] without the prompts' places."""
        return torch.cat([y[:, : self.first], y[:, self.first + self.tokens :]], dim=1)


def _fixed_positions(block: nn.Module) -> str:
    """Why a block's positions allow no further token; empty if they do."""
    taken = inspect.signature(block.forward).parameters
    if "rope" in taken:
        return "its rotary embeddings are made for a fixed number of tokens"
    if "attention_mask" in taken:
        return "its attention mask is made for a fixed number of tokens"
    biased = any(getattr(part, "relative_position_bias_table", None) is not None for part in block.modules())
    if biased or "shared_rel_pos_bias" in taken:
        return "its position bias is made for a fixed number of tokens"
    return ""
