"""Gradients of convolutions, norms and pooling that torch computes slowly on a CPU, computed otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from visionadapt.adapters.pointwise import is_channels_last
from visionadapt.frozen.graphs import channels_last


class QuickGradients(TorchFunctionMode):
    """Compute the gradients of strided depthwise convolutions in 16 bits, frozen batch norms and pooling more quickly.

    oneDNN has no bfloat16 kernel for the first, and float32 with conversions takes four times as long as what is done
    here. A norm's is a product with its scale, and needs no input. Pooling's comes with channels first, and what is
    before the pooling then takes eight times as long. Figures: docs/measurements/ratios.md.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, or what computes the same with a quicker gradient."""
        if func is torch.conv2d and not kwargs and args[0].requires_grad:
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else args[0].dtype
            if dtype != torch.float32 and _is_strided_depthwise(*args):
                return _strided_depthwise(dtype, *args)
        if func is F.batch_norm and args[0].requires_grad:
            return _batch_norm(*args, **(kwargs or {}))
        if func in _POOLING and args[0].requires_grad and is_channels_last(args[0]):
            args = (args[0].view_as(args[0]), *args[1:])  # others that use the tensor get no hook
            args[0].register_hook(channels_last)
        return func(*args, **(kwargs or {}))


_POOLING = (torch.Tensor.mean, F.adaptive_avg_pool2d)


def _is_strided_depthwise(x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, *rest: Any) -> bool:
    return weight.shape[1] == 1 and x.shape[1] > 1 and max(_pair(stride)) > 1


def _strided_depthwise(
    dtype: torch.dtype,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve in a 16-bit format; in float32 for the gradient of the weights, and for settings that are rare."""
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if trained or len(weight) > groups or _pair(dilation) != (1, 1) or isinstance(padding, str):
        with torch.autocast("cpu", enabled=False):
            offset = None if bias is None else bias.float()
            return torch.conv2d(x.float(), weight.float(), offset, stride, padding, dilation, groups).to(dtype)
    offset = None if bias is None else bias.to(dtype)
    convolved: Tensor = _StridedDepthwise.apply(x.to(dtype), weight.to(dtype), offset, _pair(stride), _pair(padding))
    return convolved


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    trained = any(part is not None and part.requires_grad for part in (weight, bias))
    if training or trained or mean is None or variance is None:
        return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    normalised: Tensor = _FrozenNorm.apply(x, mean, variance, weight, bias, eps)
    return normalised


class _FrozenNorm(torch.autograd.Function):
    """A batch norm with fixed statistics: its gradient is γ / √(σ² + ε) times that of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *fixed: Any) -> Tensor:
        mean, variance, weight, bias, eps = fixed
        ctx.save_for_backward(variance, weight)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        variance, weight = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt() if weight is None else weight * (variance + ctx.eps).rsqrt()
        return gradient * scale.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 2)), None, None, None, None, None


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class _StridedDepthwise(torch.autograd.Function):
    """A depthwise convolution with a stride s, whose gradient is s² convolutions without one.

    An input's row p gets its gradient from the kernel's rows i, i + s, … alone, where i = (p + padding) mod s.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        gradient = channels_last(gradient)
        found = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
        for starts in product(*map(range, ctx.stride)):
            taps = weight[:, :, starts[0] :: ctx.stride[0], starts[1] :: ctx.stride[1]].flip(2, 3)
            height, width = taps.shape[2:]
            if height and width:
                part = F.conv2d(gradient, taps, None, 1, (height - 1, width - 1), 1, len(taps))
                axes = zip(starts, ctx.stride, ctx.padding, part.shape[2:], ctx.shape[2:], strict=True)
                (rows, own_rows), (columns, own_columns) = (_places(*axis) for axis in axes)
                found[:, :, rows, columns] = part[:, :, own_rows, own_columns]
        return found, None, None, None, None


def _places(start: int, stride: int, padding: int, length: int, size: int) -> tuple[slice, slice]:
    """Return where the elements q of a part belong on an axis, at stride · q + start − padding, and which these are."""
    offset = start - padding
    first = max(-(offset // stride), 0)
    stop = max(min(length, (size - 1 - offset) // stride + 1), first)
    return slice(stride * first + offset, max(stride * stop + offset, 0), stride), slice(first, stop)
