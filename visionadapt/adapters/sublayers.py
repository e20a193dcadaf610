"""Find the parts of residual blocks from their sites: attention, MLP, and their first and last projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from visionadapt.adapters.pointwise import input_channels
from visionadapt.core.sites import Kind, Site


class Unit(NamedTuple):
    """An attention and the MLP next to it, or only a block's MLP, within `scope`; projections in the model's order."""

    scope: str
    attention: Site | None
    inside: list[Site]
    mlp: list[Site]


def of_kind(sites: Sequence[Site], *kinds: Kind) -> list[Site]:
    """Return the sites of these kinds."""
    return [site for site in sites if site.kind in kinds]


def projections(sites: Sequence[Site]) -> list[Site]:
    """Return every linear layer and convolution inside a block."""
    return [site for site in of_kind(sites, "linear", "conv") if site.block is not None]


def units(sites: Sequence[Site]) -> list[Unit]:
    """Return every attention with its MLP, and the MLP of every block without attention, in the model's order."""
    attentions = of_kind(sites, "attention")
    found = []
    for site in sites:
        if site.kind == "attention":
            found.append(_unit(parent(site.name), site, sites))
        elif site.kind == "block" and not any(within(attention, site.name) for attention in attentions):
            found.append(_unit(site.name, None, sites))
    return found


def closing_projections(sites: Sequence[Site], mlp_only: bool = False) -> list[Site]:
    """Return the last projection of every attention and MLP, whose output is added to the residual stream."""
    chosen: list[Site] = []
    for unit in units(sites):
        if unit.attention is not None and not mlp_only:
            chosen.append(unit.inside[-1] if unit.inside and unit.inside[-1].called else unit.attention)
        chosen.extend(unit.mlp[-1:])
    return chosen


def opening_projections(sites: Sequence[Site]) -> list[Site]:
    """Return the projections that read the residual stream: those to q, k and v, and the first of every MLP."""
    chosen: list[Site] = []
    for unit in units(sites):
        if unit.attention is not None and not unit.attention.rows:
            chosen += [site for site in unit.inside[:-1] if input_channels(site) == unit.attention.dim]
        elif unit.attention is not None:
            chosen.append(unit.attention)
        chosen += unit.mlp[:-1]
    return chosen


def mlps(sites: Sequence[Site]) -> list[Site]:
    """Return a site for every MLP that is a module of its own, whose input and output have the same shape."""
    blocks = of_kind(sites, "block")
    found = []
    for unit in units(sites):
        around = next((block for block in blocks if unit.scope == block.name or within(unit, block.name)), None)
        name = parent(unit.mlp[-1].name) if unit.mlp else unit.scope
        if around is None or name == unit.scope:
            continue
        module = around.module.get_submodule(name.removeprefix(f"{around.name}.") if around.name else name)
        closing = unit.mlp[-1]
        inside = [site for site in of_kind(sites, "linear", "conv") if within(site, name)]
        if input_channels(unit.mlp[0]) != closing.dim or any(site.kind != closing.kind for site in inside):
            continue
        if any({*getattr(site.module, "stride", ())} - {1} for site in inside):
            continue  # its map shrinks
        prefix = around.prefix_tokens if closing.layout == "NLC" else 0
        found.append(replace(closing, name=name, module=module, kind="block", prefix_tokens=prefix, called=True))
    return found


def parent(name: str) -> str:
    """Return the dotted name of the module that contains another."""
    return name.rpartition(".")[0]


def within(part: Site | Unit, scope: str) -> bool:
    """Return whether a site or unit is inside the module of that name."""
    name = part.scope if isinstance(part, Unit) else part.name
    return scope == "" or name.startswith(f"{scope}.")


def _unit(scope: str, attention: Site | None, sites: Sequence[Site]) -> Unit:
    within_scope = [site for site in of_kind(sites, "linear", "conv") if within(site, scope)]
    inside = [] if attention is None else [site for site in within_scope if within(site, attention.name)]
    outside = [site for site in within_scope if site not in inside]
    mlp = [site for site in outside if parent(site.name) == parent(outside[-1].name) and site.kind == outside[-1].kind]
    # the first projection of an MLP widens, that of a squeeze-and-excitation narrows
    alone = len(mlp) > 1 and parent(mlp[-1].name) != scope and mlp[0].dim > input_channels(mlp[0])
    is_mlp = alone or (len(mlp) > 1 and attention is not None)
    return Unit(scope, attention, inside, mlp if is_mlp else [])
