"""A host's weight: where it is, how it is used, and whether a weight-space method can work there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from visionadapt.adapters.slot import weight_name
from visionadapt.core.sites import Site


def takes_weight(site: Site) -> bool:
    """Whether the weight has to be changed itself, because calls of the module cannot be changed."""
    return not site.called or isinstance(site.module, nn.MultiheadAttention)


def weight_of(module: nn.Module) -> Tensor:
    """The tensor that a weight-space method changes: `weight`, or `in_proj_weight` of `nn.MultiheadAttention`."""
    return cast(Tensor, getattr(module, weight_name(module)))


def effective_weight(module: nn.Module, rule: Callable[[nn.Module], Tensor] | None) -> Tensor:
    """The weight that the module's forward uses: by a site's rule, or the parameter itself."""
    return weight_of(module) if rule is None else rule(module)


def refuse_weight(site: Site) -> str:
    """Why a weight-space method cannot work at the site; empty if it can."""
    module = site.module
    if isinstance(module, nn.MultiheadAttention):
        return "" if module.in_proj_weight is not None else "its q, k and v weights are three tensors of unlike widths"
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__} is neither a linear layer nor a 2-d convolution"
    explained = site.convolve is not None or site.effective_weight is not None
    if isinstance(module, nn.Conv2d) and not explained and type(module).forward is not nn.Conv2d.forward:
        return f"{type(module).__name__} convolves by a rule of its own; give a Site with `convolve`"
    if isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward:
        return f"{type(module).__name__} multiplies by a rule of its own"
    if takes_weight(site) and site.effective_weight is not None:
        return "its parent reads a weight that is not the one used"
    return ""


def own_convolution(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """x convolved by another weight with an `nn.Conv2d`'s own padding, stride, dilation and groups, without bias."""
    convolved: Tensor = cast(nn.Conv2d, module)._conv_forward(x, weight, None)
    return convolved


def channel_axis(module: nn.Module) -> int:
    """The axis of a linear layer's or a convolution's output that holds the channels."""
    return 1 if isinstance(module, nn.Conv2d) else -1


def whole_rows(parts: Mapping[str, Tensor], rows: Mapping[str, slice], length: int, fill: float) -> Tensor:
    """A tensor of `length` rows made of parts for some of them; the others are filled with one number."""
    if len(parts) == 1 and next(iter(parts.values())).shape[0] == length:
        return next(iter(parts.values()))
    like = next(iter(parts.values()))
    pieces, done = [], 0
    for name, place in sorted(rows.items(), key=lambda item: item[1].start or 0):
        pieces.append(like.new_full(((place.start or 0) - done, *like.shape[1:]), fill))
        pieces.append(parts[name])
        done = place.stop
    pieces.append(like.new_full((length - done, *like.shape[1:]), fill))
    return torch.cat(pieces)
