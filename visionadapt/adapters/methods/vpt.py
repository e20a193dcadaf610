"""VPT (visual prompt tuning): learned tokens in addition to an image's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.slot import Point
from visionadapt.adapters.trial import needs_more_than_tokens, takes_any_length
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class VPT(Placement):
    """Learned tokens after the class token: `deep` gives every block its own, shallow passes one set through all.

    Jia et al., "Visual Prompt Tuning", ECCV 2022, equations 4 to 8. Prompts enter the chosen blocks and are removed
    after each (deep) or after the last (shallow), so no other module sees them. They start uniform within
    ±√(6 / (3·16² + C)). The model does not start as pretrained, since prompts take part in attention at once.

    Blocks with `nn.MultiheadAttention` must be made with `batch_first=True`.

    Trainable parameters: tokens·C, for each chosen block if deep.

    Attributes:
        tokens: number of prompts, at least 1.
        deep: whether every block has its own prompts.
        dropout: probability in [0, 1) that an element of the prompts is zeroed in training.
    """

    needs: ClassVar[str] = "blocks"

    tokens: int = 10
    deep: bool = True
    dropout: float = 0.0

    def refuse(self, site: Site) -> str:
        if site.kind != "block":
            return "prompts are the input of a whole block"
        if site.layout != "NLC":
            return f"its {site.layout} maps have no place for further tokens"
        if any(isinstance(part, nn.MultiheadAttention) and not part.batch_first for part in site.module.modules()):
            return "its tokens come before its samples, [L, N, C]: make it with batch_first=True"
        reason = _fixed_positions(site.module)
        if not reason and needs_more_than_tokens(site.module):
            return "its forward needs more than tokens, such as the size of their map"
        if not reason and not takes_any_length(site.module, site.dim):
            return "it does not take tokens [N, L, C] of any number L"
        return reason

    def build(self, site: Site) -> nn.Module:
        """Make the layer for one block with its own prompts."""
        return VPTLayer(self, site, opens=True, closes=True)

    def build_together(self, sites: Sequence[Site]) -> list[nn.Module]:
        """Make the layers for all chosen blocks; shallow prompts enter at the first and leave at the last."""
        if self.deep:
            return [self.build(site) for site in sites]
        last = len(sites) - 1
        return [VPTLayer(self, site, opens=i == 0, closes=i == last) for i, site in enumerate(sites)]


class VPTLayer(nn.Module):
    """The prompts of `VPT` at one block: `prompts` [tokens, C] where they enter; None elsewhere."""

    changes_length = True

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
        """Insert the prompts into x [N, L, C] after its prefix tokens: [N, L + tokens, C]."""
        if self.prompts is None:
            return x
        prompts = self.dropout(self.prompts).to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([x[:, : self.first], prompts, x[:, self.first :]], dim=1)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Remove the prompts from y [N, L + tokens, C]: [N, L, C]."""
        return torch.cat([y[:, : self.first], y[:, self.first + self.tokens :]], dim=1)


def _fixed_positions(block: nn.Module) -> str:
    """Explain why a block's positions allow no further tokens; empty if they do."""
    taken = inspect.signature(block.forward).parameters
    if "rope" in taken:
        return "its rotary embeddings have a fixed number of tokens"
    if "attention_mask" in taken:
        return "its attention mask has a fixed number of tokens"
    biased = any(getattr(part, "relative_position_bias_table", None) is not None for part in block.modules())
    if biased or "shared_rel_pos_bias" in taken:
        return "its position bias has a fixed number of tokens"
    return ""
