"""Train a host's own parameters: trainable copies that take their place while the layer is active."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import nn

from visionadapt.adapters.freeze import forget_biases
from visionadapt.adapters.slot import Point, Slot


class TunedLayer(nn.Module):
    """Trainable copies of some of a host's parameters, by dotted name, that replace the originals while active.

    With `wakes`, the host and the modules in it follow `train()` while the layer is active.
    """

    points: tuple[Point, ...] = ()

    def __init__(self, host: nn.Module, parameters: Sequence[str], wakes: bool = False) -> None:
        super().__init__()
        self.wakes = wakes
        self.paths = tuple(parameters)
        self.originals: dict[str, nn.Parameter] = {}
        twins: dict[int, nn.Parameter] = {}
        for path in parameters:
            original = _get(host, path)
            twin = nn.Parameter(original.detach().clone(), requires_grad=original.requires_grad)
            _register(self, path, twins.setdefault(id(original), twin))

    def enter(self, host: nn.Module) -> None:
        """Replace the host's parameters by the trainable copies, and store the originals."""
        for path in self.paths:
            self.originals[path] = _get(host, path)
            _set(host, path, _get(self, path))
        forget_biases(host)

    def leave(self, host: nn.Module) -> None:
        """Put the originals back, on the device and in the dtype that the host has now."""
        for path, original in self.originals.items():
            now = _get(host, path)
            if (original.device, original.dtype) != (now.device, now.dtype):
                original.data = original.data.to(now.device, now.dtype)
            _set(host, path, original)
        self.originals = {}
        forget_biases(host)

    def woken(self, host: nn.Module) -> Iterator[nn.Module]:
        """Yield the modules that follow `train()` while this layer is active."""
        if self.wakes:
            yield from (module for _, module in modules_below(host))


def modules_below(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the module and every module in it, each after its dotted name, except adapters."""
    yield name, module
    for part, child in module.named_children():
        if not isinstance(child, Slot):
            yield from modules_below(child, f"{name}.{part}" if name else part)


def _get(module: nn.Module, path: str) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    return cast(nn.Parameter, module.get_submodule(owner)._parameters[name])


def _set(module: nn.Module, path: str, parameter: nn.Parameter) -> None:
    owner, _, name = path.rpartition(".")
    module.get_submodule(owner)._parameters[name] = parameter


def _register(module: nn.Module, path: str, parameter: nn.Parameter) -> None:
    """Register a parameter under a dotted path, with plain modules in between."""
    *owners, name = path.split(".")
    for owner in owners:
        if owner not in module._modules:
            module.add_module(owner, nn.Module())
        module = cast(nn.Module, module._modules[owner])
    module.register_parameter(name, parameter)
