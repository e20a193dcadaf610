"""The context in which a backbone computes in a number format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def computing_in(precision: str, device: str, *, twice: bool = False) -> Iterator[None]:
    """Run modules in a number format: torch's autocast, except for a gradient that is slow on a CPU.

    `float32` changes nothing. `twice` says that the backward pass recomputes them outside of this context and needs the
    same tensors.
    """
    kind, dtype = torch.device(device).type, None if precision == "float32" else getattr(torch, precision)
    quick = _QuickDepthwise() if dtype is not None and kind == "cpu" and not twice else nullcontext()
    with torch.autocast(kind, dtype, enabled=dtype is not None), quick:
        yield


class _QuickDepthwise(TorchFunctionMode):
    """Compute strided depthwise convolutions in float32 inside a CPU's autocast if they need a gradient.

    oneDNN has no bfloat16 kernel for that gradient: on two threads, [32, 672, 14, 14] with a 5×5 kernel and stride 2
    took 35 ms, and 5 ms in float32, conversions included.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, in float32 if it is such a convolution."""
        if func is torch.conv2d and not kwargs and args[0].requires_grad and _is_strided_depthwise(*args):
            with torch.autocast("cpu", enabled=False):
                floats: list[Any] = [part.float() if isinstance(part, Tensor) else part for part in args]
                return func(*floats).to(torch.bfloat16)
        return func(*args, **(kwargs or {}))


def _is_strided_depthwise(x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, *rest: Any) -> bool:
    strides = (stride,) if isinstance(stride, int) else stride
    return weight.shape[1] == 1 and x.shape[1] > 1 and max(strides) > 1
