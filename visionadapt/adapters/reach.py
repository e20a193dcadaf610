"""Check on real inputs that every adapter gets a gradient and changes the output, in every mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionadapt.adapters.slot import places
from visionadapt.errors import AdapterError
from visionadapt.system.text import first_of


def probe(model: nn.Module, inputs: Any) -> int:
    """Check that every active adapter layer gets a gradient and changes the output in train, eval and inference mode.

    In train and eval mode, a nonzero gradient shows that a layer's output reaches the model's output; it is computed
    with slightly perturbed weights, since many start at zero, and frozen layer scales of almost zero count as one. In
    `torch.inference_mode()`, where some models take another path, the weights of one layer at a time are perturbed. The
    model, its modes, its gradients and the global random state are restored.

    Args:
        model: a model with attached adapters.
        inputs: what it is called with: a tensor, a tuple of positional or a dict of keyword arguments. One or two
            samples are enough.

    Returns:
        The number of adapter layers.

    Raises:
        AdapterError: no adapter is active, the output is not finite, or some layers are not reached; the message names
            them.
    """
    layers = {f"{place.slot.site} ({name})": place.slot[name] for place in places(model) for name in place.slot.active}
    layers = {key: layer for key, layer in layers.items() if any(True for _ in layer.parameters())}
    if not layers:
        raise AdapterError("no adapter is active in this model; attach one, or switch to one")
    with torch.random.fork_rng(), restored_modes(model), _opened(model):
        torch.manual_seed(0)
        for training in (True, False):
            model.train(training)
            _fail("gets no gradient", "train" if training else "eval", _without_gradient(model, inputs, layers))
        _fail("does not change the output", "inference", _without_effect(model, inputs, layers))
    return len(layers)


def _without_gradient(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> list[str]:
    """Return the layers whose gradient is missing, or is zero for a small and a large perturbation of the weights."""
    silent = list(layers)
    for by in (0.1, 1.0):
        still = _gradient_missing(model, inputs, {key: layers[key] for key in silent}, list(layers.values()), by)
        silent = [key for key in silent if key in still]
        if not silent:
            break
    return silent


def _gradient_missing(
    model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module], acting: list[nn.Module], by: float
) -> set[str]:
    with torch.enable_grad(), _perturbed(acting, by):
        outputs = [output for output in _run(model, inputs) if output.requires_grad]
        if not outputs:
            return set(layers)
        loss = sum((output * torch.randn_like(output)).sum() for output in outputs)
        owners = [(key, parameter) for key, layer in layers.items() for parameter in layer.parameters()]
        gradients = torch.autograd.grad(loss, [parameter for _, parameter in owners], allow_unused=True)  # type: ignore[arg-type]
    found = list(zip((key for key, _ in owners), gradients, strict=True))
    unreachable = {key for key, gradient in found if gradient is None}
    reached = {key for key, gradient in found if gradient is not None and gradient.any()}
    return unreachable | (set(layers) - reached)


def _without_effect(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> list[str]:
    with torch.inference_mode(), _perturbed(layers.values(), by=0.1):
        before = _run(model, inputs)
        if not all(bool(output.isfinite().all()) for output in before):
            raise AdapterError("the model's output on these inputs is not finite; probe with other inputs")
        ineffective = []
        for key, layer in layers.items():
            with _perturbed([layer], by=1.0):
                after = _run(model, inputs)
            if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
                ineffective.append(key)
    return ineffective


def _run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Return the model's output as a flat list of its floating-point tensors."""
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
    elif is_dataclass(output):
        yield from _flat(vars(output))


@contextmanager
def _perturbed(layers: Iterable[nn.Module], by: float) -> Iterator[None]:
    """Add noise to the layers' parameters within the context, then restore them bit for bit."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    saved = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.data.add_(torch.randn_like(parameter), alpha=by)
    try:
        yield
    finally:
        for parameter, values in zip(parameters, saved, strict=True):
            parameter.data.copy_(values)


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Restore the mode of every module after the context."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _opened(model: nn.Module) -> Iterator[None]:
    """Within the context, set frozen factors per channel that are almost zero, such as new layer scales, to one.

    A branch behind them would change the output by less than its rounding, though the branch is reached.
    """
    closed = [
        parameter
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and parameter.numel() == max(parameter.shape, default=1) > 0
        and not name.endswith("bias")
        and parameter.abs().max() < 1e-3
    ]
    saved = [parameter.detach().clone() for parameter in closed]
    for parameter in closed:
        parameter.data.fill_(1.0)
    try:
        yield
    finally:
        for parameter, values in zip(closed, saved, strict=True):
            parameter.data.copy_(values)


def _fail(what: str, mode: str, layers: list[str]) -> None:
    if layers:
        shown = first_of(layers, 5)
        raise AdapterError(f"in {mode} mode the adapter {what} at {shown}; choose other places with where= or blocks=")
