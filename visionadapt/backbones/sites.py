"""Find the sites of a timm model where adapters can be attached, from its modules and one measured forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import norm
from timm.layers.attention import Attention, AttentionRope
from timm.models import beit, eva, maxxvit, swin_transformer, swin_transformer_v2
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from visionadapt.backbones.anatomy import Anatomy, in_eval_mode
from visionadapt.backbones.convolutions import convolve_of, effective_weight_of, is_understood
from visionadapt.core.sites import SLOT, Kind, Layout, Site

_CHANNELS_FIRST_NORMS = (
    _BatchNorm,
    _InstanceNorm,
    nn.GroupNorm,
    norm.LayerNorm2d,
    norm.RmsNorm2d,
    norm.SimpleNorm2d,
)
_NORMS = (*_CHANNELS_FIRST_NORMS, nn.LayerNorm, nn.RMSNorm, norm.RmsNorm, norm.SimpleNorm)

_FUSED_BY_THIRDS = (
    Attention,
    AttentionRope,
    beit.Attention,
    eva.EvaAttention,
    maxxvit.Attention2d,
    maxxvit.AttentionCl,
    swin_transformer.WindowAttention,
    swin_transformer_v2.WindowAttention,
)


@dataclass(frozen=True)
class _Measured:
    """Measurements of a forward on one blank image; `tokens` is the number that the blocks return, −1 for maps.

    `shapes` has the modules that were called and returned a tensor, `read` those whose weight was used without a call.
    """

    shapes: dict[nn.Module, tuple[int, ...]]
    read: set[nn.Module]
    tokens: int
    prefix_tokens: int


def find_sites(model: nn.Module, anatomy: Anatomy, forward: Callable[[], Tensor]) -> tuple[Site, ...]:
    """Return all sites of a timm model in the order of its modules; modules that the forward never uses are left out.

    `forward` runs the whole model once on a blank image.
    """
    measured = _measure(model, anatomy, forward)
    units = {block.module for block in anatomy.blocks}
    owners = {
        module: (index, block.stage)
        for index, block in enumerate(anatomy.blocks)
        for root in (*block.before, block.module)
        for module in root.modules()
    }
    parents = {child: module for module in model.modules() for child in module.children()}
    found: list[Site] = []
    for name, module in model.named_modules():
        if SLOT in name.split("."):  # an adapter's own layers
            continue
        block, stage = owners.get(module, (None, None))
        if module in units:
            found.append(_block_site(name, module, anatomy, owners[module][0], measured))
        kind = _kind(module)
        if kind is not None and (module in measured.shapes or module in measured.read):
            site = _inner_site(name, module, kind, measured)
            rows = _fused_rows(parents.get(module), module)
            found.append(replace(site, rows=rows, block=block, stage=stage))
    return tuple(found)


def _block_site(name: str, module: nn.Module, anatomy: Anatomy, index: int, measured: _Measured) -> Site:
    block = anatomy.blocks[index]
    layout, prefix_tokens = (
        block.layout or anatomy.layout,
        block.prefix_tokens if block.layout else anatomy.prefix_tokens,
    )
    channels = _channels(measured.shapes[module], layout)
    return Site(name, module, "block", layout, channels, index, block.stage, prefix_tokens)


def _inner_site(name: str, module: nn.Module, kind: Kind, measured: _Measured) -> Site:
    shape = measured.shapes.get(module)
    layout = _layout(module, kind, shape)
    holds_tokens = measured.tokens >= 0 and (shape is None or shape[1:-1] == (measured.tokens,))
    return Site(
        name,
        module,
        kind,
        layout,
        _declared_channels(module) if shape is None else _channels(shape, layout),
        prefix_tokens=measured.prefix_tokens if holds_tokens else 0,
        called=shape is not None,
        effective_weight=effective_weight_of(module),
        convolve=convolve_of(module),
    )


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Conv2d):
        return "conv" if is_understood(module) else None
    if isinstance(module, _NORMS):
        return "norm"
    return "attention" if _is_attention(module) else None


def _is_attention(module: nn.Module) -> bool:
    """Return whether the module has heads and its own projections for them."""
    projects = any(isinstance(child, nn.Linear | nn.Conv2d) for child in module.children())
    return projects and isinstance(getattr(module, "num_heads", None), int)


def _layout(module: nn.Module, kind: Kind, shape: tuple[int, ...] | None) -> Layout:
    if kind == "attention":
        channels_first = any(isinstance(child, nn.Conv2d) for child in module.children())
    else:
        channels_first = isinstance(module, (nn.Conv2d, *_CHANNELS_FIRST_NORMS))
    if channels_first:
        return "NCHW"
    return "NHWC" if shape is not None and len(shape) == 4 else "NLC"


def _channels(shape: tuple[int, ...], layout: Layout) -> int:
    return shape[1] if layout == "NCHW" else shape[-1]


def _declared_channels(module: Any) -> int:
    return int(module.weight.shape[0])


def _fused_rows(parent: nn.Module | None, module: nn.Module) -> dict[str, slice]:
    """Return which output rows of a fused projection are q, k and v; empty where they are not in thirds."""
    in_thirds = isinstance(parent, _FUSED_BY_THIRDS) and not getattr(parent, "head_first", False)
    if not in_thirds or getattr(parent, "qkv", None) is not module:
        return {}
    third = _declared_channels(module) // 3
    return {name: slice(index * third, (index + 1) * third) for index, name in enumerate("qkv")}


def _measure(model: nn.Module, anatomy: Anatomy, forward: Callable[[], Tensor]) -> _Measured:
    """Run one forward of a blank image with a hook on every module."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad(), in_eval_mode(model):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    last = shapes[anatomy.blocks[-1].module]
    tokens = last[1] if anatomy.layout == "NLC" and len(last) == 3 else -1
    return _Measured(shapes, _read_weights(model, forward, shapes), tokens, anatomy.prefix_tokens)


def _read_weights(
    model: nn.Module, forward: Callable[[], Tensor], shapes: dict[nn.Module, tuple[int, ...]]
) -> set[nn.Module]:
    """Return the modules that were not called although the output depends on their weight."""
    silent = [
        module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d) and module not in shapes
    ]
    if not silent:
        return set()
    before = [module.weight.requires_grad for module in silent]
    try:
        for module in silent:
            module.weight.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad(), in_eval_mode(model):
            total = forward().sum()
            gradients = torch.autograd.grad(total, [module.weight for module in silent], allow_unused=True)
    finally:
        for module, flag in zip(silent, before, strict=True):
            module.weight.requires_grad_(flag)
    return {module for module, gradient in zip(silent, gradients, strict=True) if gradient is not None}
