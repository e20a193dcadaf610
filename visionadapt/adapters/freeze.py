"""Freeze a model and keep it in eval mode whatever calls `train()`, and undo that exactly."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

_HELD = "_visionadapt_held"
_STAYS = "_visionadapt_stays_in_eval"


class _Held(NamedTuple):
    training: bool
    trainable: tuple[str, ...]
    nested: bool
    holders: set[str]
    calls: set[str]


def hold(model: nn.Module, free: frozenset[int] = frozenset(), holder: str = "") -> None:
    """Freeze every parameter of a model, in place, and keep its modules in eval mode whatever calls `train()` later.

    BatchNorm keeps its statistics, dropout and drop-path stay off. Every module gets its own `train` method, which
    returns frozen modules to eval mode; forwards have no hooks.
    `nn.TransformerEncoder` stops packing padded batches into nested tensors, which its layers cannot run while a
    gradient is required.

    Args:
        model: the model to freeze. Calling `hold` again replaces the choice of `free` modules.
        free: ids of modules that follow `train()` as usual: adapter layers, and blocks whose weights are trained.
            BatchNorm, InstanceNorm and spectral norm in such a block are held nevertheless, so that no buffer changes.
        holder: who holds the model, so that `release` can let go what nobody else holds.
    """
    for module in list(model.modules()):
        if _HELD not in module.__dict__:
            trainable = tuple(name for name, p in module.named_parameters(recurse=False) if p.requires_grad)
            nested = bool(getattr(module, "use_nested_tensor", False))
            module.__dict__[_HELD] = _Held(module.training, trainable, nested, set(), set())
        module.__dict__[_HELD].holders.add(holder)
    model.__dict__[_HELD].calls.add(holder)
    renew(model, free)


def holders_in(model: nn.Module) -> set[str]:
    """Return who holds the model or parts of it, except those who hold what the model itself is a part of."""
    found = (cast("_Held | None", module.__dict__.get(_HELD)) for module in model.modules())
    return {holder for held in found if held is not None for holder in held.calls}


def renew(model: nn.Module, free: frozenset[int]) -> None:
    """Choose anew which modules are free, among those that are held."""
    for module in list(model.modules()):
        if _HELD not in module.__dict__:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        stays = id(module) not in free or _drifts(module)
        module.__dict__["train"] = partial(_train, module)
        module.__dict__[_STAYS] = stays
        module.training = module.training and not stays
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def release(model: nn.Module, holders: Collection[str] | None = None) -> None:
    """Undo `hold`: restore every `requires_grad`, mode and setting from before the first call.

    Args:
        model: the model, or a part of it.
        holders: those that no longer hold it; what others hold stays as it is. None for all.
    """
    for module in list(model.modules()):
        held = cast("_Held | None", module.__dict__.get(_HELD))
        if held is None:
            continue
        for own in (held.holders, held.calls):
            own.difference_update(set(own) if holders is None else holders)
        if held.holders:
            continue
        del module.__dict__[_HELD], module.__dict__["train"], module.__dict__[_STAYS]
        module.training = held.training
        for name, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(name in held.trainable)
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = held.nested


def forget_biases(model: nn.Module) -> None:
    """Empty timm's caches of attention biases, as in LeViT and TinyViT, which are filled in eval mode.

    timm empties them when `train()` is called only, not when the parameters that they were made from change.
    """
    for module in model.modules():
        if isinstance(module.__dict__.get("attention_bias_cache"), dict):
            module.__dict__["attention_bias_cache"] = {}


def _drifts(module: nn.Module) -> bool:
    """Return whether a module changes its buffers whenever it is called in train mode."""
    normed = (isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
    return isinstance(module, _NormBase | _SpectralNorm) or any(normed)


def _train(module: nn.Module, mode: bool = True) -> nn.Module:
    """Call the module's own `train`, then return the frozen modules in it to eval mode."""
    type(module).train(module, mode)
    for part in module.modules():
        if part.__dict__.get(_STAYS, False):
            part.training = False
    return module
