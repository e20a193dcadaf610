"""A proof, on real inputs, that every adapter is reached: it gets a gradient and it changes the output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from visionadapt.adapters.slot import places
from visionadapt.errors import AdapterError


class Reached(NamedTuple):
    """What `probe` proved: how many adapter layers take part, and in how many forward passes that was seen."""

    layers: int
    forwards: int


def probe(model: nn.Module, inputs: Any) -> Reached:
    """Prove that every acting adapter layer gets a gradient and changes the output in train, eval and inference mode.

    In train and eval mode, a gradient that is not zero shows that a layer's output reaches the model's; it is taken
    with all weights moved a little, since much is zero at the start. In `torch.inference_mode()`, where some models
    take another path, each layer's weights are moved in turn. The model,
    its modes, its gradients and the global random state are as before afterwards.

    Args:
        model: a model that carries adapters.
        inputs: what it is called with: a tensor, a tuple of positional or a dict of named arguments. One or two
            samples are enough.

    Raises:
        AdapterError: no adapter acts, the output is not finite, or some layers are not reached: the message names them.
    """
    layers = {f"{place.slot.site} ({name})": place.slot[name] for place in places(model) for name in place.slot.active}
    layers = {key: layer for key, layer in layers.items() if any(True for _ in layer.parameters())}
    if not layers:
        raise AdapterError("no adapter acts in this model; attach one, or switch to one")
    with torch.random.fork_rng(), _modes_kept(model):
        for training in (True, False):
            model.train(training)
            _fail("gets no gradient", "train" if training else "eval", _without_gradient(model, inputs, layers))
        _fail("does not change the output", "inference", _without_effect(model, inputs, layers))
    return Reached(len(layers), len(layers) + 3)


def _without_gradient(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> list[str]:
    with torch.enable_grad(), _moved(layers.values(), by=0.1):
        outputs = [output for output in _run(model, inputs) if output.requires_grad]
        if not outputs:
            return list(layers)
        loss = sum((output * torch.randn_like(output)).sum() for output in outputs)
        owners = [(key, parameter) for key, layer in layers.items() for parameter in layer.parameters()]
        gradients = torch.autograd.grad(loss, [parameter for _, parameter in owners], allow_unused=True)  # type: ignore[arg-type]
    bad = {key for (key, _), gradient in zip(owners, gradients, strict=True) if gradient is None}
    reached = {
        key for (key, _), gradient in zip(owners, gradients, strict=True) if gradient is not None and gradient.any()
    }
    return [key for key in layers if key in bad or key not in reached]


def _without_effect(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> list[str]:
    with torch.inference_mode(), _moved(layers.values(), by=0.1):
        before = _run(model, inputs)
        if not all(bool(output.isfinite().all()) for output in before):
            raise AdapterError("the model's output on the probe's inputs is not finite; give other inputs")
        unmoved = []
        for key, layer in layers.items():
            with _moved([layer], by=1.0):
                after = _run(model, inputs)
            if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
                unmoved.append(key)
    return unmoved


def _run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The model's output as a flat list of its floating-point tensors."""
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    elif isinstance(inputs, tuple):
        output = model(*inputs)
    else:
        output = model(inputs)
    return [tensor for tensor in _flat(output) if tensor.is_floating_point()]


def _flat(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _flat(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _flat(value)


@contextmanager
def _moved(layers: Iterable[nn.Module], by: float) -> Iterator[None]:
    """The layers' parameters moved at random for the time of the block, then put back bit for bit."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    kept = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.data.add_(torch.randn_like(parameter), alpha=by)
    try:
        yield
    finally:
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.data.copy_(values)


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _fail(what: str, mode: str, layers: list[str]) -> None:
    if layers:
        shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if len(layers) > 5 else "")
        raise AdapterError(f"in {mode} mode the adapter {what} at {shown}; choose other places with where= or blocks=")
