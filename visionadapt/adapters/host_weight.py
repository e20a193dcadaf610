"""A host's weight: which tensor it is, how the forward uses it, and whether a weight-space method can work there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from visionadapt.adapters.slot import Point, plain_class, plain_tensor, tells_reads_from_calls, weight_name
from visionadapt.core.sites import Layout, Site


def takes_weight(site: Site) -> bool:
    """Return whether an adapter has to change the weight itself, since it cannot change calls of the module."""
    return not site.called or isinstance(site.module, nn.MultiheadAttention)


def weight_points(site: Site, on_calls: Point) -> tuple[Point, ...]:
    """Return where a weight-space layer acts: on calls of the module, and where others read its weight, on that."""
    if takes_weight(site):
        return ("weight",)
    plain = site.effective_weight is None and site.convolve is None
    return (on_calls, "weight") if plain and tells_reads_from_calls(site.module) else (on_calls,)


def weight_of(module: nn.Module) -> Tensor:
    """Return the tensor that a weight-space method changes, without adapters: `weight`, or fused `in_proj_weight`."""
    return cast(Tensor, plain_tensor(module, weight_name(module)))


def effective_weight(module: nn.Module, rule: Callable[[nn.Module], Tensor] | None) -> Tensor:
    """Return the weight that the module's forward uses: the site's rule applied to it, or the parameter itself."""
    return weight_of(module) if rule is None else rule(module)


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a linear layer or convolution computes something else than torch's, such as other padding."""
    plain = plain_class(module).forward
    return (isinstance(module, nn.Linear) and plain is not nn.Linear.forward) or (
        isinstance(module, nn.Conv2d) and plain is not nn.Conv2d.forward
    )


def refuse_weight(site: Site) -> str:
    """Explain why a weight-space method cannot work at the site; empty if it can."""
    module = site.module
    if isinstance(module, nn.MultiheadAttention):
        return "" if module.in_proj_weight is not None else "its q, k and v weights are three tensors of unlike widths"
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__} is neither a linear layer nor a 2-d convolution"
    explained = site.convolve is not None or site.effective_weight is not None
    if has_own_forward(module) and site.called and not (isinstance(module, nn.Conv2d) and explained):
        hint = "; pass a Site with `convolve`" if isinstance(module, nn.Conv2d) else ""
        return f"{type(module).__name__} has a forward of its own{hint}"
    if takes_weight(site) and site.effective_weight is not None:
        return "its parent reads a weight that differs from the effective one"
    return ""


def refuse_scaling(site: Site) -> str:
    """Explain why the output of a linear layer or convolution cannot be scaled by its weight; empty if it can."""
    if takes_weight(site):
        return "its parent reads its weight and adds the bias itself, so its output cannot be scaled"
    return refuse_weight(site)


def refuse_rows(site: Site, rows: str) -> str:
    """Explain why a fused weight has none of the requested `rows` (of q, k, v); empty if it has, or is not fused."""
    if site.rows and not chosen_rows(site, rows):
        return f"it has the rows {', '.join(site.rows)}, and rows={rows} names none of them"
    return ""


def chosen_rows(site: Site, rows: str) -> dict[str, slice]:
    """Return the requested `rows` (of q, k, v) of a fused weight by name, in its order; empty where it is not fused."""
    named = {name: place for name, place in site.rows.items() if name in rows}
    return dict(sorted(named.items(), key=lambda item: item[1].start or 0))


def row_count(rows: slice) -> int:
    """Return how many rows a slice covers."""
    return int(rows.stop - (rows.start or 0))


def own_convolution(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """Convolve x by another weight with an `nn.Conv2d`'s own padding, stride, dilation and groups, without bias."""
    convolved: Tensor = cast(nn.Conv2d, module)._conv_forward(x, weight, None)
    return convolved


def output_layout(module: nn.Module) -> Layout:
    """Return the layout of a linear layer's or a convolution's output; any layout with channels last counts as NLC."""
    return "NCHW" if isinstance(module, nn.Conv2d) else "NLC"


def output_axis(module: nn.Module) -> int:
    """Return the axis of a linear layer's or a convolution's output that holds the channels."""
    return 1 if isinstance(module, nn.Conv2d) else -1


def scale_rows(weight: Tensor, factor: Tensor) -> Tensor:
    """Multiply each output row of a weight [rows, …] by its factor [rows]."""
    return weight * factor.view(-1, *[1] * (weight.dim() - 1))


def whole_rows(parts: Mapping[str, Tensor], rows: Mapping[str, slice], length: int, fill: float) -> Tensor:
    """Assemble a tensor of `length` rows from parts for some of them; fill the others with one number."""
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
