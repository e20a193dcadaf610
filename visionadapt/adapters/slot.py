"""The slot that holds a host module's adapter layers, and the hooks and the property that call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from inspect import signature
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.outputs import tensor_in, with_tensor
from visionadapt.core.sites import SLOT, Site
from visionadapt.errors import AdapterError

Point = Literal["input", "output", "weight"]
Convolve = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Slot(nn.ModuleDict):
    """A host's adapters by name, as a child of the host.

    Attributes:
        site: dotted name of the site, the middle part of every state key.
        active: names of the active adapters, in the order in which they act.
        settings: the settings of each adapter, by name.
        rows: within `mixed`, which samples each adapter acts on; else None.
        windows: within `mixed`, how many rows of the host's tensors belong to each sample; 0 if they are shared.
        measured: the same by shapes of the samples that `mixed` saw last.
        map_channels: channels of a block's output [N, C, H, W]; None for tokens, and for other modules.
        effective_weight, convolve: as in `Site`; merging needs them.
        input_name: name of the first parameter of the host's forward, for calls by name.
    """

    input_name: str | None = None

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site.name
        self.active: tuple[str, ...] = ()
        self.settings: dict[str, object] = {}
        self.rows: dict[str, Tensor] | None = None
        self.windows: int | None = None
        self.measured: dict[tuple[tuple[int, ...], ...], int] = {}
        self.map_channels = site.dim if (site.kind, site.layout) == ("block", "NCHW") else None
        self.effective_weight = site.effective_weight
        self.convolve = site.convolve


class Place(NamedTuple):
    """A module with attached adapters, and the slot that holds them."""

    host: nn.Module
    slot: Slot


@runtime_checkable
class Swapping(Protocol):
    """A layer that acts by replacing parameters of the host with its own."""

    def enter(self, host: nn.Module) -> None: ...

    def leave(self, host: nn.Module) -> None: ...


def points_of(layer: nn.Module) -> tuple[Point, ...]:
    """Return where a layer acts; a layer without `points` acts on the output, as `layer(x, y, host)`."""
    return cast(tuple[Point, ...], getattr(layer, "points", ("output",)))


def in_merging_order(slot: Slot) -> list[nn.Module]:
    """Return the active layers that change the weight or the output in order, then those on the input in reverse."""
    layers = [slot[name] for name in slot.active]
    on_input = [layer for layer in layers if "input" in points_of(layer)]
    return [layer for layer in layers if layer not in on_input] + on_input[::-1]


def places(model: nn.Module) -> Iterator[Place]:
    """Yield every slot in the model, in the model's order."""
    for module in model.modules():
        slot = module._modules.get(SLOT)
        if isinstance(slot, Slot):
            yield Place(module, slot)


def weight_name(module: nn.Module | type[nn.Module]) -> str:
    """Return the name of the tensor of a module, or of a class of modules, that a weight-space method changes."""
    kind = module if isinstance(module, type) else type(module)
    return "in_proj_weight" if issubclass(kind, nn.MultiheadAttention) else "weight"


def put(site: Site, name: str, layer: nn.Module, settings: object) -> None:
    """Put a layer into its host's slot, which is created if needed, and activate it."""
    host = site.module
    _require_own_class(host, site.name)
    slot = host._modules.get(SLOT)
    if not isinstance(slot, Slot):
        slot = Slot(site)
        slot.input_name = _input_name(host)
        host.add_module(SLOT, slot)
    slot[name] = layer
    slot.settings[name] = settings
    activate(Place(host, slot), (*slot.active, name))
    _connect(host, slot)


def take(place: Place, name: str) -> nn.Module:
    """Remove a layer from its slot; removing the last one also removes the slot and restores the host."""
    _require_own_class(place.host, place.slot.site)
    activate(place, tuple(other for other in place.slot.active if other != name))
    layer = place.slot.pop(name)
    del place.slot.settings[name]
    if len(place.slot) == 0:
        del place.host._modules[SLOT]
    _connect(place.host, place.slot)
    return layer


def activate(place: Place, names: tuple[str, ...]) -> None:
    """Activate exactly these of the slot's layers, in this order."""
    for name in reversed(place.slot.active):
        layer = place.slot[name]
        if isinstance(layer, Swapping):
            layer.leave(place.host)
    place.slot.active = names
    for name in names:
        layer = place.slot[name]
        if isinstance(layer, Swapping):
            layer.enter(place.host)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return a module's class as it is without adapters."""
    return cast(type[nn.Module], getattr(type(module), "class_without_adapters", type(module)))


def plain_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return a module's weight or bias as it is without adapters."""
    if name in module._parameters:
        return module._parameters[name]
    return cast("Tensor | None", getattr(module, name))


def tells_reads_from_calls(module: nn.Module) -> bool:
    """Return whether a layer can act on the module's calls, and on the weight itself where others read it."""
    own_forward = "forward" in vars(module) or plain_class(module).forward not in _FORWARDS
    return not own_forward and isinstance(module._parameters.get("weight"), Tensor)


def _connect(host: nn.Module, slot: Slot) -> None:
    """Make the host call the slot at the points where its layers act, and nowhere else."""
    points = tuple(sorted({point for layer in slot.values() for point in points_of(layer)}))
    _unhook(host)
    if "input" in points:
        host.register_forward_pre_hook(_before, with_kwargs=True)
    if "output" in points:
        host.register_forward_hook(_after, with_kwargs=True)
    plain = cast(Any, plain_class(host))
    lists_members = len(slot) > 0 and isinstance(host, _CONTAINERS)
    host.__class__ = _adapted_class(plain, points) if points or lists_members else plain


def _require_own_class(host: nn.Module, site: str) -> None:
    """Refuse to change the class of a host that others have derived from the one that it has with adapters."""
    if plain_class(host) is not type(host) and "class_without_adapters" not in vars(type(host)):
        raise AdapterError(
            f"the class of {site} was changed after an adapter was attached, as parametrisations and FSDP do; "
            f"undo that first"
        )


def _unhook(host: nn.Module) -> None:
    before = (host._forward_pre_hooks, host._forward_pre_hooks_with_kwargs)
    after = (host._forward_hooks, host._forward_hooks_with_kwargs)
    for hooks, with_kwargs in (before, after):
        for key in [key for key, hook in hooks.items() if hook in (_before, _after)]:
            del hooks[key]
            with_kwargs.pop(key, None)


@cache
def _adapted_class(plain: type[nn.Module], points: tuple[Point, ...]) -> type[nn.Module]:
    """Make a subclass for hosts of layers that act at these points.

    Code that `torch.compile` made of a host is not used for another class of it, while hooks alone go unnoticed.
    """
    members: dict[str, Any] = {
        "__module__": plain.__module__,
        "__doc__": plain.__doc__,
        "__reduce_ex__": lambda host, _protocol: (_new, (plain, points), host.__getstate__()),
        "class_without_adapters": plain,
    }
    if "weight" in points:
        members |= _reading(plain)
    if issubclass(plain, _CONTAINERS):
        members |= _listing(plain)
    return type(plain.__name__, (plain,), members)


def _new(plain: type[nn.Module], points: tuple[Point, ...]) -> nn.Module:
    kind = _adapted_class(cast(Any, plain), points)
    return kind.__new__(kind)


def _reading(plain: type[nn.Module]) -> dict[str, Any]:
    """Make the members by which reading the weight returns it as changed by the slot, whoever reads it.

    The forward of a linear layer or convolution uses the plain tensors instead where a layer also acts on its calls.
    The parameter itself stays in place, so state-dict keys do not change. `torch.nn.utils.parametrize` is similar, but
    copies of a model share its class there, so detaching one breaks the others, and they cannot be pickled.
    """
    tensor = weight_name(plain)
    members: dict[str, Any] = {tensor: property(partial(_read, tensor), partial(_write, tensor))}
    if plain.forward in _FORWARDS:
        members |= {"bias": property(_read_bias, partial(_write, "bias")), "forward": _FORWARDS[plain.forward]}
    return members


_CONTAINERS = (nn.Sequential, nn.ModuleDict)


def _listing(plain: type[nn.Module]) -> dict[str, Any]:
    """Make the members by which a container does not list the slot among its own, which its forward may call."""
    by_name = issubclass(plain, nn.ModuleDict)

    def members_of(host: nn.Module) -> dict[str, nn.Module]:
        return {name: module for name, module in host._modules.items() if name != SLOT and module is not None}

    members: dict[str, Any] = {
        "__len__": lambda host: len(members_of(host)),
        "__iter__": lambda host: iter(members_of(host) if by_name else members_of(host).values()),
    }
    if by_name:
        views = {"keys": dict.keys, "values": dict.values, "items": dict.items}
        members |= {name: (lambda host, view=view: view(members_of(host))) for name, view in views.items()}
    return members


def _read(tensor: str, host: nn.Module, called: bool = False) -> Tensor:
    """Return the host's tensor as changed by the active adapters; in its own forward, by those without other points."""
    weight = cast(Tensor, host._parameters[tensor])
    slot = cast(Slot, host._modules[SLOT])
    try:
        for layer in _on_weight(slot, called):
            weight = layer.change_weight(weight)
    except AttributeError as error:  # nn.Module would fall back to the unchanged parameter
        raise RuntimeError(f"the adapter at {slot.site} failed: {error}") from error
    return weight


def _read_bias(host: nn.Module) -> Tensor | None:
    """Return the host's bias as changed by the active adapters on its weight."""
    weight, bias = (host._parameters[name] for name in ("weight", "bias"))
    slot = cast(Slot, host._modules[SLOT])
    try:
        for layer in _on_weight(slot, called=False):
            if hasattr(layer, "merge"):
                weight, bias = layer.merge(weight, bias)
    except AttributeError as error:
        raise RuntimeError(f"the adapter at {slot.site} failed: {error}") from error
    return bias


def _on_weight(slot: Slot, called: bool) -> Iterator[Any]:
    """Yield the active layers that change the weight itself: all for its readers, in the host's forward only some."""
    if slot.rows and not called:
        raise AdapterError(
            f"the weight of {slot.site} is read outside of its own forward, where all samples of a batch share it; "
            f"run each adapter's samples as a batch of their own, with switch"
        )
    for layer in in_merging_order(slot) if slot.rows is None else ():
        points = points_of(layer)
        if points == ("weight",) or ("weight" in points and not called):
            yield layer


def _write(tensor: str, host: nn.Module, value: Tensor | None) -> None:
    """Set the plain tensor, as torch's `DataParallel` does in the copies that it makes."""
    host._parameters[tensor] = cast("nn.Parameter | None", value)


def _linear(host: nn.Module, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
    return F.linear(input, _read("weight", host, called=True), host._parameters["bias"])


def _convolution(host: nn.Module, input: Tensor) -> Tensor:  # noqa: A002
    weight = _read("weight", host, called=True)
    convolved: Tensor = cast(nn.Conv2d, host)._conv_forward(input, weight, host._parameters["bias"])
    return convolved


_FORWARDS: dict[Any, Callable[[nn.Module, Tensor], Tensor]] = {
    nn.Linear.forward: _linear,
    nn.Conv2d.forward: _convolution,
}


def _before(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook: change the host's first input by the active adapters; its dtype stays (autocast)."""
    slot = cast(Slot, host._modules[SLOT])
    changed = _first(slot, args, kwargs)
    for name in slot.active if slot.rows is None else slot.rows:
        layer = cast(Any, slot[name])
        if "input" not in points_of(layer):
            continue
        if slot.rows is None:
            changed = layer.change_input(changed, host).to(changed.dtype)
        else:
            index = _samples(slot, name, changed)
            changed = changed.index_copy(0, index, layer.change_input(changed[index], host).to(changed.dtype))
    if args:
        return (changed, *args[1:]), kwargs
    return args, {**kwargs, _keyword(slot, kwargs): changed}


def _after(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook: change the host's output, or the first tensor in it, by the active adapters; its dtype stays."""
    slot = cast(Slot, host._modules[SLOT])
    x = _first(slot, args, kwargs)
    y = tensor_in(output, slot.site)
    if slot.map_channels is not None and (y.dim() != 4 or y.shape[1] != slot.map_channels):
        raise AdapterError(
            f"{slot.site} returns the shape {list(y.shape)}, and not a map [N, {slot.map_channels}, H, W]; attach with "
            f"sites= that have its layout"
        )
    for name in slot.active if slot.rows is None else slot.rows:
        layer = slot[name]
        if "output" not in points_of(layer):
            continue
        if slot.rows is None:
            y = layer(x, y, host).to(y.dtype)
        else:
            index = _samples(slot, name, y)
            y = y.index_copy(0, index, layer(x[index], y[index], host).to(y.dtype))
    return with_tensor(output, y)


def _samples(slot: Slot, name: str, x: Tensor) -> Tensor:
    """Return the indices of an adapter's samples on the first axis, which may hold several windows per sample."""
    index = cast("dict[str, Tensor]", slot.rows)[name].to(x.device)
    windows = slot.windows
    if windows is None:
        raise AdapterError("within `mixed`, call the model itself, which counts the samples, rather than parts of it")
    if windows == 0:
        raise AdapterError(
            f"the input of {slot.site} is not arranged by samples, which the adapter {name!r} needs in a mixed batch; "
            f"run its samples as a batch of their own, with switch, or exclude the place with where="
        )
    if windows == 1:
        return index
    return (index[:, None] * windows + torch.arange(windows, device=x.device)).flatten()


def _first(slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return cast(Tensor, args[0] if args else kwargs[_keyword(slot, kwargs)])


def _keyword(slot: Slot, kwargs: dict[str, Any]) -> str:
    """The name of the input in a call without positional arguments: that of the first parameter, if it is there."""
    return slot.input_name if slot.input_name in kwargs else next(iter(kwargs))


def _input_name(host: nn.Module) -> str | None:
    try:
        return next(iter(list(signature(plain_class(host).forward).parameters)[1:]), None)
    except (TypeError, ValueError):
        return None
