"""Find the sites of any `nn.Module`: blocks, attention, linear layers, convolutions and norms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from visionadapt.adapters.host_weight import has_own_forward
from visionadapt.adapters.pointwise import input_channels
from visionadapt.adapters.slot import plain_class
from visionadapt.adapters.trial import output_shape
from visionadapt.adapters.weight_reads import read_modules
from visionadapt.core.sites import SLOT, Kind, KnowsSites, Layout, Site

_PREFIX_TOKENS = (
    "class_token",
    "cls_token",
    "dist_token",
    "distillation_token",
    "reg_token",
    "register_tokens",
)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)
_LAYERS = (nn.Linear, nn.Conv2d, *_NORMS)


def find_sites(model: nn.Module) -> list[Site]:
    """Find every place in a module where an adapter can be attached, in the module's order.

    A block is a member of an `nn.ModuleList` or `nn.Sequential` whose members all have the same class and several
    layers each, innermost where such lists are nested. A linear layer's output counts as tokens [N, …, C], a
    convolution's as a map [N, C, H, W]. The projections of `nn.MultiheadAttention` are not `called`: torch reads their
    weights; neither are layers whose weight another module's code reads, nor those with a forward of their own. Class
    and register tokens are known by their usual names. A backbone knows more (fused q, k and v, stages): its own
    `sites()` are returned.
    """
    if isinstance(model, KnowsSites):
        return model.sites()
    blocks = {block: index for index, block in enumerate(_blocks(model))}
    owners: dict[nn.Module, int] = {}
    for block, index in blocks.items():
        for module in block.modules():
            owners.setdefault(module, index)
    prefix = _prefix_tokens(model)
    read = {id(module) for module in read_modules(model)}
    found = ((module, _site(name, module, module in blocks)) for name, module in _own_modules(model) if name)
    return [
        replace(
            site,
            block=owners.get(module),
            called=site.called and id(module) not in read,
            prefix_tokens=prefix if module in owners and site.layout == "NLC" else 0,
        )
        for module, site in found
        if site is not None
    ]


def _prefix_tokens(model: nn.Module) -> int:
    """Return the number of learned class and register tokens [1, n, C], by the names that they usually have."""
    named = ((name.rpartition(".")[2], parameter) for name, parameter in model.named_parameters())
    return sum(p.shape[1] for name, p in named if name in _PREFIX_TOKENS and p.dim() == 3 and p.shape[0] == 1)


def _site(name: str, module: nn.Module, is_block: bool) -> Site | None:
    if isinstance(module, nn.MultiheadAttention):
        width = module.embed_dim
        rows = {part: slice(i * width, (i + 1) * width) for i, part in enumerate("qkv")}
        return Site(name, module, "attention", "NLC", width, rows=rows)
    kind, layout, dim = _shape(module)
    if is_block:
        kind, layout, dim = "block", *_output_shape(module)
    if kind is None:
        return None
    by_torch = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return Site(name, module, kind, layout, dim, called=not by_torch and not has_own_forward(module))


def _shape(module: nn.Module) -> tuple[Kind | None, Layout, int]:
    """Return kind, layout and output channels of a layer; kind None for anything else."""
    if isinstance(module, nn.Linear):
        return "linear", "NLC", module.out_features
    if isinstance(module, nn.Conv2d):
        return "conv", "NCHW", module.out_channels
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return "norm", _norm_layout(module), module.normalized_shape[-1]
    if isinstance(module, nn.GroupNorm):
        return "norm", "NCHW", module.num_channels
    if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
        return "norm", "NCHW", module.num_features
    return None, "NLC", 0


def _norm_layout(module: nn.LayerNorm | nn.RMSNorm) -> Layout:
    """Return the layout of a norm, which a subclass may apply to maps with channels first."""
    if type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward):
        return "NLC"
    tried = output_shape(module, module.normalized_shape[-1])
    return "NLC" if tried is None else tried[0]


def _output_shape(block: nn.Module) -> tuple[Layout, int]:
    """Return layout and channels of a block's output: from a trial, else those of its last layer.

    Where the trial fails, the output counts as a map if any layer is a convolution.
    """
    layers = [module for _, module in _own_modules(block) if isinstance(module, _LAYERS)]
    first = input_channels(Site("", layers[0], "linear", "NLC", _shape(layers[0])[2]))
    for channels in (first, 2 * first):  # some blocks divide their input among branches
        tried = output_shape(block, channels)
        if tried is not None:
            return tried
    shapes = [_shape(layer) for layer in layers]
    maps = any(kind == "conv" for kind, _, _ in shapes)
    return "NCHW" if maps else "NLC", shapes[-1][2]


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    for _, container in _own_modules(model):
        if isinstance(container, nn.ModuleList | nn.Sequential) and _repeats(container):
            for member in container:
                if not any(_repeats(inner) for inner in member.modules()):
                    yield member


def _own_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the module and those in it with their names, except the layers of adapters that are attached already."""
    return ((name, part) for name, part in module.named_modules() if SLOT not in name.split("."))


def _repeats(container: nn.Module) -> bool:
    if not isinstance(container, nn.ModuleList | nn.Sequential) or len(container) == 0:
        return False
    layered = all(sum(isinstance(module, _LAYERS) for _, module in _own_modules(member)) > 1 for member in container)
    return layered and len({plain_class(member) for member in container}) == 1
