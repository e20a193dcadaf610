"""The slot that holds a host module's adapters, and the hooks that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from visionadapt.sites import Site

SLOT = "visionadapt_adapters"
Point = Literal["input", "output", "weight", "parameters"]
Convolve = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Slot(nn.ModuleDict):
    """A host's adapters by name: a child of the host, or the parametrization of its weight.

    Attributes:
        site: dotted name of the site, the middle part of every state key.
        active: names of the adapters in use, in the order in which they act.
        effective_weight, convolve: as in `Site`; merging needs them.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site.name
        self.active: tuple[str, ...] = ()
        self.effective_weight = site.effective_weight
        self.convolve = site.convolve

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the active adapters change it (the slot as a parametrization)."""
        for name in self.active:
            weight = cast(Any, self[name]).change_weight(weight)
        return weight


class Place(NamedTuple):
    """One slot in a model: its host, and the name of the host's tensor that it parametrises (None: it is hooked)."""

    host: nn.Module
    slot: Slot
    tensor: str | None


def points_of(layer: nn.Module) -> tuple[Point, ...]:
    """Where a layer acts. A layer without `points` acts on the output: `layer(x, y, host)`."""
    return cast(tuple[Point, ...], getattr(layer, "points", ("output",)))


def places(model: nn.Module) -> Iterator[Place]:
    """Every slot in the model, in the model's order."""
    for module in model.modules():
        slot = module._modules.get(SLOT)
        if isinstance(slot, Slot):
            yield Place(module, slot, None)
        if parametrize.is_parametrized(module):
            for tensor, chain in cast(nn.ModuleDict, module.parametrizations).items():
                for link in cast(nn.ModuleList, chain):
                    if isinstance(link, Slot):
                        yield Place(module, link, tensor)


def weight_name(module: nn.Module) -> str:
    """Name of the tensor that a weight-space method changes."""
    return "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"


def put(site: Site, name: str, layer: nn.Module) -> None:
    """Put a layer into its host's slot, which is made where there is none, and let it act."""
    host = site.module
    if "weight" in points_of(layer):
        slot = _parametrizing_slot(site)
    else:
        slot = _hooked_slot(site)
        _hook(host, points_of(layer))
    slot[name] = layer
    slot.active = (*slot.active, name)


def take(place: Place, name: str) -> nn.Module:
    """Take a layer out of its slot; the last one takes slot, hooks and parametrization with it."""
    layer = place.slot.pop(name)
    place.slot.active = tuple(other for other in place.slot.active if other != name)
    if len(place.slot) == 0:
        _remove(place)
    return layer


def _hooked_slot(site: Site) -> Slot:
    slot = site.module._modules.get(SLOT)
    if not isinstance(slot, Slot):
        slot = Slot(site)
        site.module.add_module(SLOT, slot)
    return slot


def _parametrizing_slot(site: Site) -> Slot:
    tensor = weight_name(site.module)
    for place in places(site.module):
        if place.host is site.module and place.tensor == tensor:
            return place.slot
    slot = Slot(site)
    parametrize.register_parametrization(site.module, tensor, slot)
    return slot


def _hook(host: nn.Module, points: tuple[Point, ...]) -> None:
    if "input" in points and _before not in host._forward_pre_hooks.values():
        host.register_forward_pre_hook(_before, with_kwargs=True)
    if "output" in points and _after not in host._forward_hooks.values():
        host.register_forward_hook(_after, with_kwargs=True)


def _remove(place: Place) -> None:
    host = place.host
    if place.tensor is not None:
        parametrize.remove_parametrizations(host, place.tensor, leave_parametrized=False)
        return
    del host._modules[SLOT]
    for key in [key for key, hook in host._forward_pre_hooks.items() if hook is _before]:
        del host._forward_pre_hooks[key]
        host._forward_pre_hooks_with_kwargs.pop(key, None)
    for key in [key for key, hook in host._forward_hooks.items() if hook is _after]:
        del host._forward_hooks[key]
        host._forward_hooks_with_kwargs.pop(key, None)


def _before(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook: the host's first input as the active adapters change it."""
    slot = cast(Slot, host._modules[SLOT])
    changed = _first(args, kwargs)
    for name in slot.active:
        layer = cast(Any, slot[name])
        if "input" in points_of(layer):
            changed = layer.change_input(changed, host)
    if args:
        return (changed, *args[1:]), kwargs
    key = next(iter(kwargs))
    return args, {**kwargs, key: changed}


def _after(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook: the host's output (a tuple's first element) as the active adapters change it."""
    slot = cast(Slot, host._modules[SLOT])
    x = _first(args, kwargs)
    y = output if isinstance(output, Tensor) else output[0]
    for name in slot.active:
        layer = slot[name]
        if "output" in points_of(layer):
            y = layer(x, y, host)
    return y if isinstance(output, Tensor) else (y, *output[1:])


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return cast(Tensor, args[0] if args else next(iter(kwargs.values())))
