"""Attaching adapters to a model, choosing which of them act, and taking them off again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from visionadapt.adapters.discover import find_sites
from visionadapt.adapters.freeze import hold, release
from visionadapt.adapters.placement import select
from visionadapt.adapters.slot import places, put, take
from visionadapt.errors import AdapterError
from visionadapt.sites import Site


@runtime_checkable
class AdapterSettings(Protocol):
    """What a method's settings offer: a frozen dataclass with the fields of `Placement`, and three functions."""

    @property
    def blocks(self) -> str: ...

    @property
    def stages(self) -> str: ...

    @property
    def where(self) -> str: ...

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this adapter; empty if it can."""
        ...

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Which of the sites it goes to when no pattern is given."""
        ...

    def build(self, site: Site) -> nn.Module:
        """The layer for one site, with fresh weights."""
        ...


@dataclass(frozen=True)
class Attached:
    """What `attach` did.

    Attributes:
        name: name of the adapter.
        sites: dotted names of the sites that carry it.
        trainable: number of its trainable parameters.
        total: number of the model's parameters, the adapter's included.
    """

    name: str
    sites: tuple[str, ...]
    trainable: int
    total: int


def attach(
    model: nn.Module,
    settings: AdapterSettings,
    where: str | None = None,
    sites: Sequence[Site] | None = None,
    name: str = "default",
    seed: int = 0,
) -> Attached:
    """Attach an adapter to a model, in place, and declare it what is trained: everything else is frozen and in eval.

    Adapters that are attached already stay, and act before the new one; `switch` chooses among them. The start values
    depend on the seed and on each site's name, on nothing else. Classes, attributes and state-dict keys of the model
    stay as they are; where a parent reads a weight without calling its module, reading it gives the
    changed weight.

    Args:
        model: the model, or any module of it, that contains the sites.
        settings: the method with its placement, such as `LoRA(rank=8, blocks="last:6")`.
        where: pattern on the sites' dotted names, in place of the settings' own.
        sites: the places that the model offers (a backbone's `sites()`); None finds them in the module itself.
        name: what the adapter is called in the model and in its state.
        seed: seed of the start values.

    Raises:
        AdapterError: no site is chosen, a chosen one cannot take the method, or the name is taken.
    """
    _check_name(model, name)
    if where is not None:
        settings = replace(settings, where=where)  # type: ignore[type-var]
    offered = list(sites) if sites is not None else find_sites(model)
    chosen = choose(settings, offered)
    _check_inside(model, chosen)
    layers = [_build(settings, site, seed) for site in chosen]
    for site, layer in zip(chosen, layers, strict=True):
        put(site, name, layer)
    declare(model)
    count = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    return Attached(name, tuple(site.name for site in chosen), count, total)


def choose(settings: AdapterSettings, sites: Sequence[Site]) -> list[Site]:
    """The sites that an adapter with these settings goes to.

    Raises:
        AdapterError: there is none, or a site that the pattern asks for cannot take the method; the message says why.
    """
    method = type(settings).__name__
    inside = select(sites, settings.blocks, settings.stages, settings.where)
    if settings.where:
        refused = [(site, reason) for site in inside if (reason := settings.refuse(site))]
        if refused:
            raise AdapterError(f"{method} cannot be attached to {refused[0][0].name}: {refused[0][1]}")
        return inside
    wanted = settings.own_places(inside)
    chosen = [site for site in wanted if not settings.refuse(site)]
    if not wanted:
        raise AdapterError(f"{method} has no place of its own in these blocks; name sites with where=")
    if not chosen:
        raise AdapterError(f"{method} cannot be attached to {wanted[0].name}: {settings.refuse(wanted[0])}")
    return chosen


def detach(model: nn.Module, name: str | None = None) -> None:
    """Take an adapter off the model, or all of them; the last one leaves the model as it was before the first.

    Raises:
        AdapterError: there is no adapter of that name.
    """
    _check_present(model, name)
    for place in list(places(model)):
        for layer in [name] if name is not None else list(place.slot):
            if layer in place.slot:
                take(place, layer)
    if names(model):
        declare(model)
    else:
        release(model)


def switch(model: nn.Module, *chosen: str) -> None:
    """Let the named adapters act, in this order, and no other; with no name the model acts as it was pretrained.

    Those that act are trainable, the others are frozen.

    Raises:
        AdapterError: there is no adapter of that name.
    """
    for name in chosen:
        _check_present(model, name)
    for place in places(model):
        place.slot.active = tuple(name for name in chosen if name in place.slot)
    declare(model)


def names(model: nn.Module) -> tuple[str, ...]:
    """Names of the adapters attached to the model, in the order of attaching."""
    return tuple(dict.fromkeys(name for place in places(model) for name in place.slot))


def trainable(model: nn.Module) -> list[str]:
    """Dotted names of the parameters that are declared trainable, in the model's order."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def declare(model: nn.Module) -> None:
    """Freeze the whole model except the adapters that act; the rule of `freeze.hold`."""
    acting = [place.slot[name] for place in places(model) for name in place.slot.active]
    slots = [place.slot for place in places(model)]
    free = {id(module) for layer in acting for module in layer.modules()} | {id(slot) for slot in slots}
    hold(model, frozenset(free))
    for layer in acting:
        layer.train(model.training)
        for parameter in layer.parameters():
            parameter.requires_grad_(True)


def _build(settings: AdapterSettings, site: Site, seed: int) -> nn.Module:
    """A layer whose start values come from the seed and the site's name, on the host's device and in its type."""
    digest = hashlib.sha256(f"{seed}/{site.name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        layer = settings.build(site)
    like = next((tensor for tensor in site.module.parameters() if tensor.is_floating_point()), None)
    return layer if like is None else layer.to(device=like.device, dtype=like.dtype)


def _check_name(model: nn.Module, name: str) -> None:
    if not name or "/" in name or "." in name:
        raise AdapterError(f"name={name!r} cannot name an adapter: it must not be empty, nor contain '/' or '.'")
    if name in names(model):
        raise AdapterError(f"an adapter named {name!r} is attached already; detach it, or give another name=")


def _check_present(model: nn.Module, name: str | None) -> None:
    existing = names(model)
    if not existing:
        raise AdapterError("the model carries no adapter; attach one first")
    if name is not None and name not in existing:
        raise AdapterError(f"no adapter is named {name!r}; there are {', '.join(existing)}")


def _check_inside(model: nn.Module, chosen: Sequence[Site]) -> None:
    inside = {id(module) for module in model.modules()}
    outside = [site.name for site in chosen if id(site.module) not in inside]
    if outside:
        raise AdapterError(f"the site {outside[0]} belongs to another model; give the sites of this one")
