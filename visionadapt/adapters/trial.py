"""Try which layout a module takes and returns, on a copy without data (torch's meta device)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionadapt.adapters.outputs import tensor_in
from visionadapt.core.sites import Layout


def output_shape(module: nn.Module, channels: int) -> tuple[Layout, int] | None:
    """Return layout and channels of a module's output for inputs of that many channels; None if no trial succeeds.

    Channels-last maps count as NLC. Where the forward needs further arguments, height and width of the tokens' map are
    tried. A module that takes more than one layout is unclear, which is None too.
    """
    twin, sized = _without_data(module), needs_more_than_tokens(module)
    side, length = (6, 49) if channels != 6 else (10, 25)
    if sized:  # some blocks shrink the map by 8
        side = 24 if channels not in (24, 24**2) else 32
        length = side**2
    shapes: list[tuple[int, ...]] = [(2, length, channels), (2, side, side, channels), (2, channels, side, side)]
    if sized:
        shapes.insert(1, (2, length + 1, channels))  # a class token that is not part of the map
    found = set()
    for shape in shapes:
        y = _returned(twin, torch.empty(shape, device="meta"), (side, side) if sized else None)
        if y is not None and y.dim() == len(shape):
            layout: Layout = "NCHW" if shape[1] == channels else "NLC"
            found.add((layout, int(y.shape[1 if layout == "NCHW" else -1])))
    return found.pop() if len(found) == 1 else None


def _returned(module: nn.Module | None, x: Tensor, size: tuple[int, int] | None) -> Tensor | None:
    """Return the module's (first) output for x, or for x and a size, which is given as two arguments or as one."""
    if size is None:
        return _called(module, x)
    tried = (_called(module, x, further) for further in (size, (size,)))
    return next((y for y in tried if y is not None), None)


def takes_any_length(module: nn.Module, channels: int) -> bool:
    """Return whether a module takes tokens [N, L, C] of several lengths L, and returns them in the same shape."""
    twin = _without_data(module)
    for length in (49, 50, 59):
        x = torch.empty(2, length, channels, device="meta")
        y = _called(twin, x)
        if y is None or y.shape != x.shape:
            return False
    return True


def needs_more_than_tokens(module: nn.Module) -> bool:
    """Return whether a module's forward requires further arguments."""
    _, *others = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(other.default is inspect.Parameter.empty and other.kind in plain for other in others)


def _called(module: nn.Module | None, x: Tensor, further: Sequence[Any] = ()) -> Tensor | None:
    """Return the module's (first) output; None if it fails, whatever it raises."""
    if module is None:
        return None
    try:
        with torch.no_grad():
            return tensor_in(module(x, *further), "")
    except Exception:  # noqa: BLE001 - a foreign forward may raise anything on an input that it does not take
        return None


def _without_data(module: nn.Module) -> nn.Module | None:
    """Return a copy in eval mode whose tensors have shapes only; None if the module cannot be copied."""
    memo: dict[int, object] = {}
    for tensor in _tensors(module):
        shape_only = tensor.detach().to("meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(shape_only, requires_grad=False) if is_parameter else shape_only
    try:
        return copy.deepcopy(module, memo).eval()
    except Exception:  # noqa: BLE001 - a foreign attribute may refuse to be copied in any way
        return None


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        for value in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            if isinstance(value, Tensor):
                yield value
