"""Side network (ladder side-tuning): a narrow network parallel to the backbone, which gets no gradient."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import zero_
from visionadapt.core.sites import Layout, Site


@dataclass(frozen=True)
class SideNetwork(Placement):
    """A ladder: s_k = f_k(g_k · R s_{k-1} + (1 - g_k) · D_k h_k) from block k's output h_k, and y = h_K + U s_K.

    Sung et al., "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning", NeurIPS 2022, section
    3.2. f_k is a residual MLP with LayerNorm, g_k a learned gate (σ(0) at the start); h_k is detached. R is the
    identity, or, where a stage changes width or size, a pooling and a projection; tokens are pooled as a square map, or
    all to one where they are none. U starts at zero.
    Blocks must not be checkpointed: none of their activations are stored anyway, and a rung cannot be recomputed alone.

    Trainable parameters per block of C channels, with w = C / reduction: C·w + w, 2·w² + 4·w for f, 1 for the gate if
    there is a rung below, w'·w + w for R from another width w'; and once w·C + C for U.

    Attributes:
        reduction: the ladder has width C / reduction; at least 1. With 16, the backward pass of a ViT needs less than a
            tenth of the activations of full fine-tuning.
    """

    needs: ClassVar[str] = "blocks"
    checkpointable: ClassVar[bool] = False

    reduction: int = 16

    def refuse(self, site: Site) -> str:
        return "" if site.kind == "block" else "a rung of the ladder reads the output of a whole block"

    def build(self, site: Site) -> nn.Module:
        """Make a ladder of one rung."""
        return self.build_together([site])[0]

    def build_together(self, sites: Sequence[Site]) -> list[nn.Module]:
        """Make the rungs of the ladder, from the first chosen block to the last."""
        passed = Passed()
        widths = [max(1, site.dim // self.reduction) for site in sites]
        below = [0, *widths[:-1]]
        last = len(sites) - 1
        return [
            Rung(site, width, narrow, passed, is_last=index == last)
            for index, (site, width, narrow) in enumerate(zip(sites, widths, below, strict=True))
        ]


class Passed(threading.local):
    """The state that one rung passes to the next within a forward of a thread; None before and after."""

    state: Tensor | None = None

    def __reduce__(self) -> tuple[type[Passed], tuple[()]]:
        return Passed, ()


class Rung(nn.Module):
    """One rung of the ladder, which computes on channels-last tensors whatever the site's layout."""

    def __init__(self, site: Site, width: int, below: int, passed: Passed, is_last: bool) -> None:
        super().__init__()
        self.layout: Layout = site.layout
        self.passed = passed
        self.is_last = is_last
        self.down = nn.Linear(site.dim, width)
        self.bridge = nn.Linear(below, width) if below not in (0, width) else None
        self.gate = nn.Parameter(torch.zeros(())) if below else None
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, site.dim) if is_last else None
        if self.up is not None:
            zero_(self.up.weight, self.up.bias)

    def forward(self, x: Tensor, y: Tensor, host: nn.Module) -> Tensor:
        """Return y, to which the last rung adds the ladder's output."""
        taken = y.detach().movedim(1, -1) if self.layout == "NCHW" else y.detach()
        state: Tensor = self.down(taken)
        if self.gate is not None and self.passed.state is not None:
            state = state + self.gate.sigmoid() * (self._carried(self.passed.state, state) - state)
        state = state + self.out(F.gelu(self.hidden(self.norm(state))))
        if self.up is None:
            self.passed.state = state
            return y
        self.passed.state = None
        change: Tensor = self.up(state)
        return y + (change.movedim(-1, 1) if self.layout == "NCHW" else change)

    def _carried(self, below: Tensor, like: Tensor) -> Tensor:
        """Convert the state of the rung below to this rung's width and size."""
        if below.shape[:-1] != like.shape[:-1]:
            below = _pooled(below, like)
        carried: Tensor = below if self.bridge is None else self.bridge(below)
        return carried


def _pooled(below: Tensor, like: Tensor) -> Tensor:
    """Average over places [N, …, C] to the number in another tensor: over neighbours in a map, or over all places."""
    grids = [_grid(below), _grid(like)]
    if None in grids:
        average = below.flatten(1, -2).mean(1)
        return average.view(len(below), *[1] * (like.dim() - 2), -1).expand(*like.shape[:-1], -1)
    before, after = cast(list[tuple[int, int]], grids)
    pooled = F.adaptive_avg_pool2d(below.reshape(len(below), *before, -1).movedim(-1, 1), after)
    return pooled.movedim(1, -1).reshape(*like.shape[:-1], -1)


def _grid(x: Tensor) -> tuple[int, int] | None:
    """Return height and width of a map [N, H, W, C], or of tokens [N, L, C] that form a square."""
    if x.dim() == 4:
        return x.shape[1], x.shape[2]
    side = math.isqrt(x.shape[1])
    return (side, side) if side * side == x.shape[1] else None
