"""Maps over channels in any layout: the linear layers that adapters are made of."""

from __future__ import annotations

from torch import Tensor, nn

from visionadapt.core.sites import Layout, Site
from visionadapt.errors import AdapterError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


def pointwise(layout: Layout, inputs: int, outputs: int, bias: bool = True, groups: int = 1) -> nn.Linear | nn.Conv2d:
    """A map over the channel axis: Linear on NLC and NHWC, 1×1 convolution on NCHW."""
    if layout == "NCHW":
        return nn.Conv2d(inputs, outputs, 1, bias=bias, groups=groups)
    return nn.Linear(inputs, outputs, bias=bias)


def activation(name: str) -> nn.Module:
    """The activation of that name; an unknown one raises AdapterError."""
    if name not in ACTIVATIONS:
        raise AdapterError(f"activation={name} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def per_channel(values: Tensor, layout: Layout) -> Tensor:
    """A vector over channels [dim], shaped so that it multiplies a tensor of that layout."""
    return values.view(-1, 1, 1) if layout == "NCHW" else values


def input_channels(site: Site) -> int:
    """Number of channels that the site's module takes; for a linear layer or a convolution."""
    module = site.module
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Conv2d):
        return module.in_channels
    if isinstance(module, nn.MultiheadAttention):
        return int(module.embed_dim)
    return site.dim


def require(condition: bool, message: str) -> None:
    """Raise AdapterError with the message unless the condition holds: for settings' values."""
    if not condition:
        raise AdapterError(message)
