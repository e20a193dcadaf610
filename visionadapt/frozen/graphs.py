"""Turn the frozen part of a model into a plain graph: norms and paddings folded, weights in one number format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

_aten = torch.ops.aten
_CONVOLUTION_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)


def frozen_graph(
    function: Callable[[Tensor], dict[str, Tensor]], example: Tensor, dtype: torch.dtype
) -> fx.GraphModule:
    """Trace a function for inference and rewrite the graph for speed; the original weights do not change.

    Args:
        function: float [B, …] → named tensors; it must not branch on values.
        example: the batch it is traced with; the graph accepts only this shape.
        dtype: of the graph's floating-point weights and input.
    """
    with torch.no_grad():
        graph = make_fx(function, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)(example)
        fold_batch_norms(graph)
        fold_paddings(graph)
        _cast(graph, dtype)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    _forget_unused(graph)
    return graph


def fold_batch_norms(graph: fx.GraphModule) -> int:
    """Fold each batch norm that is the only consumer of a convolution into that convolution; return how many.

    With s = γ / √(σ² + ε): W′ = s · W and b′ = β + s · (b − μ), in float64, rounded once. Jacob et al., "Quantization
    and Training of Neural Networks", 2018, equation 14.
    """
    pairs = [node for node in graph.graph.nodes if _is_foldable(graph, node)]
    for number, norm in enumerate(pairs):
        _fold(graph, norm, number)
    return len(pairs)


def _is_foldable(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.target is not _aten.batch_norm.default or not isinstance(node.args[0], fx.Node):
        return False
    convolution, training = node.args[0], node.args[5]
    stored = [*node.args[1:5], *convolution.args[1:2]]
    return (
        not training
        and convolution.target is _aten.conv2d.default
        and len(convolution.users) == 1
        and all(isinstance(part, fx.Node) and part.op == "get_attr" for part in stored)
    )


def _fold(graph: fx.GraphModule, norm: fx.Node, number: int) -> None:
    convolution = norm.args[0]
    assert isinstance(convolution, fx.Node)
    arguments = convolution_arguments(convolution)
    gamma, beta, mean, variance = (_stored(graph, part).double() for part in norm.args[1:5])
    weight = _stored(graph, arguments[1])
    bias = _stored(graph, arguments[2]).double() if arguments[2] is not None else torch.zeros_like(mean)
    scale = gamma / (variance + float(str(norm.args[7]))).sqrt()
    arguments[1] = _store(graph, norm, f"folded_weight_{number}", (weight * scale.view(-1, 1, 1, 1)).to(weight.dtype))
    arguments[2] = _store(graph, norm, f"folded_bias_{number}", (beta + scale * (bias - mean)).to(weight.dtype))
    with graph.graph.inserting_before(norm):
        merged = graph.graph.call_function(_aten.conv2d.default, tuple(arguments))
    norm.replace_all_uses_with(merged)
    graph.graph.erase_node(norm)
    graph.graph.erase_node(convolution)


def fold_paddings(graph: fx.GraphModule) -> int:
    """Merge each zero padding whose only consumer is a convolution into that convolution; return how many.

    A convolution pads both sides equally. Where one side had d more zeros (TensorFlow's "same"), the other side of the
    kernel gets d zeros: the windows stay in place and nothing is copied.
    """
    found = [node for node in graph.graph.nodes if node.target is _aten.conv2d.default and _is_padded(node)]
    for number, convolution in enumerate(found):
        padded, weight, bias, stride, padding, dilation, groups = convolution_arguments(convolution)
        left, right, top, bottom = _padding(padded)[0]
        kernel = nn.functional.pad(_stored(graph, weight), _beside(left, right) + _beside(top, bottom))
        stored = _store(graph, convolution, f"padded_weight_{number}", kernel)
        padding = [padding[0] + max(top, bottom), padding[1] + max(left, right)]
        convolution.args = (padded.args[0], stored, bias, stride, padding, dilation, groups)
        graph.graph.erase_node(padded)
    return len(found)


def _is_padded(convolution: fx.Node) -> bool:
    padded, weight, *_, dilation, _ = convolution_arguments(convolution)
    if not isinstance(padded, fx.Node) or padded.target is not _aten.pad.default or len(padded.users) > 1:
        return False
    amounts, mode, value = _padding(padded)
    plain = mode == "constant" and not value and len(amounts) == 4 and min(amounts) >= 0
    return plain and bool(weight.op == "get_attr") and list(dilation) == [1, 1]


def _padding(padded: fx.Node) -> tuple[list[int], str, float | None]:
    """Return the amounts, mode and value of a padding."""
    arguments: list[Any] = [*padded.args[1:], *("constant", None)[len(padded.args) - 2 :]]
    return arguments[0], arguments[1], arguments[2]


def _beside(before: int, behind: int) -> list[int]:
    """Return the zeros to add before and after a kernel in place of unequal padding."""
    return [max(behind - before, 0), max(before - behind, 0)]


def convolution_arguments(convolution: fx.Node) -> list[Any]:
    """Return all seven arguments of a convolution node: x, weight, bias, stride, padding, dilation, groups."""
    return [*convolution.args, *_CONVOLUTION_DEFAULTS[len(convolution.args) :]]


def _stored(graph: fx.GraphModule, node: Any) -> Tensor:
    """Return the tensor that a `get_attr` node refers to."""
    found: Any = graph
    for name in str(node.target).split("."):
        found = getattr(found, name)
    return torch.as_tensor(found).detach()


def _store(graph: fx.GraphModule, before: fx.Node, name: str, tensor: Tensor) -> fx.Node:
    graph.register_buffer(name, _channels_last(tensor))
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def _cast(graph: fx.GraphModule, dtype: torch.dtype) -> None:
    """Convert the graph's floating-point weights to the number format; those of the traced module do not change."""
    for number, node in enumerate(node for node in graph.graph.nodes if node.op == "get_attr"):
        tensor = _stored(graph, node)
        if tensor.is_floating_point() and tensor.dtype != dtype:
            node.replace_all_uses_with(_store(graph, node, f"cast_{number}", tensor.to(dtype)))


def _forget_unused(graph: fx.GraphModule) -> None:
    """Drop the weights that have been replaced."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(recurse=False), *graph.named_buffers(recurse=False)]:
        if name not in used:
            delattr(graph, name)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()
