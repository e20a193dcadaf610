"""Attach adapters to a model, switch between them, and detach them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable
from uuid import uuid4

import torch
from torch import nn

from visionadapt.adapters.freeze import hold, holders_in, release, renew
from visionadapt.adapters.placement import names_sites, select
from visionadapt.adapters.sites import find_sites
from visionadapt.adapters.slot import activate, places, put, take
from visionadapt.adapters.tuned_layer import TunedLayer
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError


@runtime_checkable
class AdapterSettings(Protocol):
    """The settings of a method: a frozen dataclass with the fields of `Placement`, and three functions.

    A class may also have `needs` (what a model must have, for error messages), `learning_rate` (its default),
    `layer_decay` (see `parameter_groups`), `whole_model` (True to attach to the model itself) and `checkpointable`
    (False if its blocks cannot be recomputed in the backward pass).
    """

    @property
    def blocks(self) -> str: ...

    @property
    def stages(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def types(self) -> str: ...

    def refuse(self, site: Site) -> str:
        """Explain why the site cannot take this adapter; empty if it can."""

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Choose among the sites when neither a pattern nor a type names them."""

    def build(self, site: Site) -> nn.Module:
        """Make the layer for one site, with new weights."""


@runtime_checkable
class BuildsTogether(Protocol):
    """Settings whose layers at several sites depend on each other."""

    def build_together(self, sites: Sequence[Site]) -> list[nn.Module]:
        """Make the layers for all chosen sites, with new weights."""


@dataclass(frozen=True)
class Attached:
    """The result of `attach`.

    Attributes:
        name: name of the adapter.
        sites: dotted names of its sites.
        trainable: number of its trainable parameters.
        total: number of parameters of the model, including the adapter's.
        skipped: places that the method would choose but that cannot take it, by dotted name, with the reason.
    """

    name: str
    sites: tuple[str, ...]
    trainable: int
    total: int
    skipped: Mapping[str, str] = field(default_factory=dict)


def attach(
    model: nn.Module,
    settings: AdapterSettings,
    where: str | None = None,
    sites: Sequence[Site] | None = None,
    name: str = "default",
    seed: int = 0,
) -> Attached:
    """Attach an adapter to a model, in place, and make it trainable; everything else is frozen and in eval mode.

    Adapters that are already attached stay active, before the new one; `switch` chooses among them. The initial values
    depend only on the seed and each site's name. State-dict keys of the model do not change. Reading the `weight` of a
    module with a weight-space method returns the changed one, so that parents that read it without calling the module
    follow the adapter. A module with adapters has a subclass of its class, of the same name, until they are detached.

    Args:
        model: the model, or any module of it, that contains the sites.
        settings: the method with its placement, such as `LoRA(rank=8, blocks="last:6")`.
        where: patterns on the sites' dotted names, instead of those in the settings.
        sites: the model's sites; None finds them with `find_sites`, which asks a backbone for its own.
        name: name of the adapter in the model and in its state; without `/` and `.`.
        seed: seed of the initial values.

    Raises:
        AdapterError: no site is chosen, a chosen one cannot take the method, a site belongs to another model, the name
            is invalid or taken, or an active adapter trains the same parameter.
    """
    _check_name(model, name)
    if where is not None:
        settings = replace(settings, where=where)  # type: ignore[type-var]
    if getattr(settings, "whole_model", False):
        sites = [Site("model", model, "block", "NLC", 0)]
    sites = find_sites(model) if sites is None else sites
    chosen = choose(settings, sites)
    _check_inside(model, chosen)
    layers = _build(settings, chosen, seed)
    acting = [(n, place.slot[n], place.host) for place in places(model) for n in place.slot.active]
    _check_apart([*acting, *((name, layer, site.module) for site, layer in zip(chosen, layers, strict=True))])
    for site, layer in zip(chosen, layers, strict=True):
        put(site, name, layer.train(model.training), settings)
    declare(model, f"{name}/{uuid4()}")
    count = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    return Attached(name, tuple(site.name for site in chosen), count, total, _skipped(settings, sites))


def choose(settings: AdapterSettings, sites: Sequence[Site]) -> list[Site]:
    """Choose the sites that an adapter with these settings is attached to.

    Raises:
        AdapterError: there is none, or a site that a pattern or type names cannot take the method; the message explains
            why.
    """
    method = type(settings).__name__
    inside = select(sites, settings.blocks, settings.stages, settings.where, settings.types)
    if names_sites(settings.where, settings.types):
        refused = [(site, reason) for site in inside if (reason := settings.refuse(site))]
        if refused:
            raise AdapterError(f"{method} cannot be attached to {refused[0][0].name}: {refused[0][1]}")
        return inside
    own = settings.own_places(inside)
    chosen = [site for site in own if not settings.refuse(site)]
    if not own:
        needs = getattr(settings, "needs", "a place of its own")
        raise AdapterError(f"{method} needs {needs}, which the selected sites lack; name sites with where=")
    if not chosen:
        raise AdapterError(f"{method} cannot be attached to {own[0].name}: {settings.refuse(own[0])}")
    return chosen


def _skipped(settings: AdapterSettings, sites: Sequence[Site]) -> dict[str, str]:
    """Return the places that a method would choose by itself but that cannot take it, with the reason."""
    if names_sites(settings.where, settings.types):
        return {}
    own = settings.own_places(select(sites, settings.blocks, settings.stages, settings.where, settings.types))
    return {site.name: reason for site in own if (reason := settings.refuse(site))}


def detach(model: nn.Module, name: str | None = None) -> None:
    """Detach one adapter, or all of them; detaching the last one restores the model bit for bit.

    A part of a model stays frozen as long as the whole has an adapter of its own.

    Raises:
        AdapterError: no adapter has that name, or none is attached.
    """
    check_names(model, *([] if name is None else [name]))
    for place in list(places(model)):
        for layer in [name] if name is not None else list(place.slot):
            if layer in place.slot:
                take(place, layer)
    left = names(model)
    release(model, {holder for holder in holders_in(model) if holder.partition("/")[0] not in left})
    declare(model)


def switch(model: nn.Module, *chosen: str) -> None:
    """Activate only the named adapters, in this order; without names the model computes as pretrained.

    Active adapters are trainable, the others are frozen.

    Raises:
        AdapterError: no adapter has that name, or two of them train the same parameter.
    """
    if chosen:
        check_names(model, *chosen)
    _check_apart([(n, p.slot[n], p.host) for p in places(model) for n in chosen if n in p.slot])
    for place in places(model):
        activate(place, ())
    for place in places(model):
        activate(place, tuple(name for name in chosen if name in place.slot))
    declare(model)


def names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the attached adapters, in the order of attaching."""
    return tuple(dict.fromkeys(name for place in places(model) for name in place.slot))


def acting(model: nn.Module) -> list[tuple[str, str, object]]:
    """Return site, name and settings of every active adapter layer, in the order in which they act at each site."""
    return [(slot.site, name, slot.settings[name]) for _, slot in places(model) for name in slot.active]


def trainable(model: nn.Module) -> list[str]:
    """Return the dotted names of the trainable parameters, in the model's order."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def check_names(model: nn.Module, *requested: str) -> None:
    """Raise AdapterError unless adapters are attached and the requested names are among them."""
    existing = names(model)
    if not existing:
        raise AdapterError("the model has no adapter; attach one first")
    for name in requested:
        if name not in existing:
            raise AdapterError(f"no adapter is named {name!r}; there are {', '.join(existing)}")


def declare(model: nn.Module, holder: str | None = None) -> None:
    """Keep what is frozen in the model so, except the active adapters; with a new `holder`, freeze the whole model."""
    acting = [(place.host, place.slot[name]) for place in places(model) for name in place.slot.active]
    free = {id(place.slot) for place in places(model)}
    for host, layer in acting:
        free |= {id(module) for module in layer.modules()}
        if isinstance(layer, TunedLayer):
            free |= {id(module) for module in layer.woken(host)}
    if holder is None:
        renew(model, frozenset(free))
    else:
        hold(model, frozenset(free), holder)
    for _, layer in acting:
        for parameter in layer.parameters():
            parameter.requires_grad_(True)


def _build(settings: AdapterSettings, sites: Sequence[Site], seed: int) -> list[nn.Module]:
    """Make the layers for the sites, whose initial values depend on the seed and the site's name."""
    if isinstance(settings, BuildsTogether):
        with _seeded(seed, ",".join(site.name for site in sites)):
            layers = settings.build_together(sites)
    else:
        layers = []
        for site in sites:
            with _seeded(seed, site.name):
                layers.append(settings.build(site))
    return [_like_host(layer, site) for layer, site in zip(layers, sites, strict=True)]


@contextmanager
def _seeded(seed: int, name: str) -> Iterator[None]:
    """Seed CPU random numbers by a seed and a name, and restore the global state at the end."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def _like_host(layer: nn.Module, site: Site) -> nn.Module:
    """Move the layer to its host's device and dtype."""
    like = next((tensor for tensor in site.module.parameters() if tensor.is_floating_point()), None)
    return layer if like is None else layer.to(device=like.device, dtype=like.dtype)


def _check_name(model: nn.Module, name: str) -> None:
    if not name or "/" in name or "." in name:
        raise AdapterError(f"name={name!r} cannot name an adapter: it must not be empty, nor contain '/' or '.'")
    if name in names(model):
        raise AdapterError(f"an adapter named {name!r} is already attached; detach it, or choose another name=")


def _check_apart(acting: Sequence[tuple[str, nn.Module, nn.Module]]) -> None:
    """Refuse (name, layer, host) of the adapters to activate if two of them train the same parameter."""
    owners: dict[tuple[int, str], str] = {}
    for name, layer, host in acting:
        for path in layer.paths if isinstance(layer, TunedLayer) else ():
            module, _, parameter = path.rpartition(".")
            first = owners.setdefault((id(host.get_submodule(module)), parameter), name)
            if first != name:
                raise AdapterError(f"{first!r} and {name!r} both train {path}; switch to one of them first")


def _check_inside(model: nn.Module, chosen: Sequence[Site]) -> None:
    inside = {id(module) for module in model.modules()}
    outside = [site.name for site in chosen if id(site.module) not in inside]
    if outside:
        raise AdapterError(f"the site {outside[0]} belongs to another model; pass the sites of this one")
