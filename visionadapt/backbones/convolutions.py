"""Effective weights and padding rules of timm's convolutions: weight standardisation and SAME padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

EffectiveWeight = Callable[[nn.Module], Tensor]
Convolve = Callable[[nn.Module, Tensor, Tensor], Tensor]

_STANDARDISED = (StdConv2d, StdConv2dSame)
_SCALED = (ScaledStdConv2d, ScaledStdConv2dSame)
_PADDED = (StdConv2dSame, ScaledStdConv2dSame)


def is_understood(module: nn.Conv2d) -> bool:
    """Return whether this file can repeat the module's forward with another weight."""
    known = (Conv2dSame, *_STANDARDISED, *_SCALED)
    plain = getattr(type(module), "class_without_adapters", type(module))
    return plain.forward is nn.Conv2d.forward or isinstance(module, known)


def effective_weight_of(module: nn.Module) -> EffectiveWeight | None:
    """Return how to compute the weight of a weight-standardised convolution; None for any other."""
    return standardised_weight if isinstance(module, (*_STANDARDISED, *_SCALED)) else None


def convolve_of(module: nn.Module) -> Convolve | None:
    """Return how to convolve where the padding depends on the input's size; None where `nn.Conv2d`'s rule applies."""
    if isinstance(module, Conv2dSame):
        return convolve_same
    if isinstance(module, _PADDED) and module.same_pad:
        return convolve_padded
    return None


def standardised_weight(module: Any) -> Tensor:
    """Shift and scale each filter to mean 0 and variance 1 (Qiao et al. 2019, arXiv:1903.10520).

    In a scaled one, then multiply by gain / √fan-in (Brock et al. 2021, arXiv:2101.08692, equation 5).
    """
    gain = (module.gain * module.scale).view(-1) if isinstance(module, _SCALED) else None
    rows = module.weight.reshape(1, module.weight.shape[0], -1)
    standard = F.batch_norm(rows, None, None, weight=gain, training=True, momentum=0.0, eps=module.eps)
    return standard.reshape_as(module.weight)


def convolve_same(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Pad by TensorFlow's SAME rule for the sizes of `x` and `weight`, then convolve without bias."""
    padded = pad_same(x, list(weight.shape[-2:]), module.stride, module.dilation)
    return F.conv2d(padded, weight, None, module.stride, (0, 0), module.dilation, module.groups)


def convolve_padded(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Pad by the SAME rule for the size of `x` and the module's kernel, then convolve without bias."""
    padded = pad_same(x, module.kernel_size, module.stride, module.dilation)
    return F.conv2d(padded, weight, None, module.stride, module.padding, module.dilation, module.groups)
