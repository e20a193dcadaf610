"""The parts of a transformer block, found from its sites alone: attention, MLP, and what closes each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from visionadapt.sites import Site


class Sublayers(NamedTuple):
    """One block's sites, sorted: its attention, the attention's projections, and the MLP's."""

    attention: Site
    inside: list[Site]
    mlp: list[Site]


def sublayers(sites: Sequence[Site]) -> list[Sublayers]:
    """Attention and MLP of every block that has both, and their projections, in the model's order."""
    found = []
    for attention in sites:
        if attention.kind != "attention":
            continue
        inside = [
            site for site in sites if site.kind in ("linear", "conv") and site.name.startswith(f"{attention.name}.")
        ]
        mlp = [
            site
            for site in sites
            if site.kind in ("linear", "conv")
            and site.block == attention.block
            and site not in inside
            and parent(site.name) != attention.name
        ]
        if inside and mlp:
            found.append(Sublayers(attention, inside, mlp))
    return found


def closing_projections(sites: Sequence[Site], mlp_only: bool = False) -> list[Site]:
    """The last projection of each block's attention and of its MLP: their output is what is added to the stream."""
    chosen: list[Site] = []
    for parts in sublayers(sites):
        if not mlp_only:
            chosen.append(parts.attention if not parts.inside[-1].called else parts.inside[-1])
        chosen.append(parts.mlp[-1])
    return chosen


def parent(name: str) -> str:
    """Dotted name of the module around another."""
    return name.rpartition(".")[0]
