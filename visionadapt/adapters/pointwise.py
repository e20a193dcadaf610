"""Linear maps over the channel axis in any layout, from which adapter layers are built."""

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


def pointwise(layout: Layout, inputs: int, outputs: int) -> nn.Linear | nn.Conv2d:
    """Make a map over the channel axis: a linear layer for NLC and NHWC, a 1×1 convolution for NCHW."""
    return nn.Conv2d(inputs, outputs, 1) if layout == "NCHW" else nn.Linear(inputs, outputs)


def activation(name: str) -> nn.Module:
    """Make the activation of that name; raise AdapterError if it is unknown."""
    if name not in ACTIVATIONS:
        raise AdapterError(f"activation={name} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def zero_(*tensors: Tensor | None) -> None:
    """Fill parameters with zeros, in place."""
    for tensor in tensors:
        if tensor is not None:
            nn.init.zeros_(tensor)


def per_channel(values: Tensor, layout: Layout, axes: int = 4) -> Tensor:
    """Reshape a vector over channels [dim] so that it broadcasts over a tensor of that layout and number of axes.

    NCHW stands for any layout with channels second, as a BatchNorm over [N, C] or [N, C, L] has.
    """
    return values.view(-1, *[1] * (axes - 2)) if layout == "NCHW" else values


def input_channels(site: Site) -> int:
    """Return the input channels of a linear layer, convolution or attention; the output channels of other modules."""
    module = site.module
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Conv2d):
        return module.in_channels
    if isinstance(module, nn.MultiheadAttention):
        return int(module.embed_dim)
    return site.dim
