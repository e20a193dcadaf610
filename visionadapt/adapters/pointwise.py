"""Linear maps over the channel axis in any layout, from which adapter layers are built."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    return _Pointwise(inputs, outputs, 1) if layout == "NCHW" else nn.Linear(inputs, outputs)


class _Pointwise(nn.Conv2d):
    """A 1×1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with its channels mixed."""
        return mix_channels(x, self.weight.flatten(1), self.bias)


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a weight [outputs, C] and a bias [outputs] to the channels of a map [N, C, H, W], as a 1×1 convolution.

    Where the weight needs a gradient, channels-last maps on a CPU take a matrix product: the threads that compute the
    gradient of a convolution's weight wait for each other in a loop of oneDNN, so that a step beside another busy
    process takes ten times as long.
    """
    trained = torch.is_grad_enabled() and weight.requires_grad
    if trained and x.device.type == "cpu" and is_channels_last(x):
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight[:, :, None, None], bias)


def is_channels_last(x: Tensor) -> bool:
    """Return whether it is a map [N, C, H, W] with its channels last in memory."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def is_pointwise(module: nn.Conv2d) -> bool:
    """Return whether a convolution maps every place of its input by itself, and all channels together."""
    plain = module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
    return plain and module.padding in ((0, 0), "same", "valid")


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
