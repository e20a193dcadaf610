"""Merge adapters into the weights of their hosts."""

from __future__ import annotations

import copy
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters.freeze import forget_biases, release
from visionadapt.adapters.host_weight import own_convolution
from visionadapt.adapters.slot import Convolve, Place, activate, in_merging_order, places, take, weight_name
from visionadapt.adapters.tuned_layer import TunedLayer
from visionadapt.errors import AdapterError


@runtime_checkable
class Mergeable(Protocol):
    """A layer that can be expressed by another weight and bias of its host."""

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the host's effective weight and bias, float64, with the layer merged into them."""


def merge(model: nn.Module) -> nn.Module:
    """Return a copy of the model, in eval mode and without adapters, with the active ones merged into its weights.

    The merged state dict has the model's own keys, except that SSF, and RepAdapter at linear layers and 1×1
    convolutions, add `SITE.bias` where there was none, and that a scaled standardised convolution, as in NFNet, loses
    `SITE.gain`. The model's own class cannot load such a state; a model that was merged in the same way can.

    Computed in float64 and rounded once to the weights' own dtype. A weight-standardised convolution becomes a plain
    one with the same padding rule. The model itself does not change: it can be trained further, or detached exactly.

    Raises:
        AdapterError: no adapter is active, or one of them cannot be merged; the message names it and its first site.
    """
    _check(model)
    forget_biases(model)
    merged = copy.deepcopy(model)
    replaced = {id(place.host): _fold(place) for place in list(places(merged))}
    for module in list(merged.modules()):
        for name, child in module.named_children():
            module._modules[name] = replaced.get(id(child), child)
    release(merged)
    return replaced.get(id(merged), merged).eval()


def _check(model: nn.Module) -> None:
    acting = [(place, name) for place in places(model) for name in place.slot.active]
    if not acting:
        raise AdapterError("no adapter is active, so there is nothing to merge; attach one, or switch to one")
    for place, name in acting:
        layer = place.slot[name]
        where = f"the adapter {name!r} at {place.slot.site}"
        if not isinstance(layer, Mergeable | TunedLayer):
            raise AdapterError(
                f"{where} cannot be merged: {type(layer).__name__} is not a linear change of a weight; keep it attached"
            )
        if isinstance(layer, Mergeable) and weight_name(place.host) not in place.host._parameters:
            raise AdapterError(
                f"{where} cannot be merged: the weight there is computed by a parametrisation, such as weight norm; "
                "remove that before attaching, with torch.nn.utils.parametrize.remove_parametrizations, or keep the "
                "adapter attached"
            )
        if getattr(layer, "needs_own_weight", False) and place.slot.active[0] != name:
            raise AdapterError(f"{where} cannot be merged after another one on the same weight; merge that one first")


def _fold(place: Place) -> nn.Module:
    """Merge a slot's active layers into its host and remove the slot; return the host, or its replacement."""
    host, slot = place
    rule = slot.effective_weight
    layers = in_merging_order(slot)
    linear = [cast(Mergeable, layer.double()) for layer in layers if isinstance(layer, Mergeable)]
    for layer in layers:
        if isinstance(layer, TunedLayer):
            layer.originals = {}
    activate(place, ())
    for name in list(slot):
        take(place, name)
    if not linear:
        return host
    weight, bias = _double(rule(host) if rule else getattr(host, weight_name(host))), _double(_bias(host))
    with torch.no_grad():
        for change in linear:
            weight, bias = change.merge(cast(Tensor, weight), bias)
    return _with(host, cast(Tensor, weight), bias, (slot.convolve or own_convolution) if rule else None)


def _with(host: nn.Module, weight: Tensor, bias: Tensor | None, convolve: Convolve | None) -> nn.Module:
    """Give the host another weight and bias; a convolution with a forward of its own becomes a plain one."""
    like = cast(Tensor, getattr(host, weight_name(host)))
    if convolve is not None:
        host = _plain(cast(nn.Conv2d, host), convolve)
    tensors = {weight_name(host): weight}
    if bias is not None and not isinstance(host, nn.MultiheadAttention):
        tensors["bias"] = bias
    for name, tensor in tensors.items():
        host._parameters[name] = nn.Parameter(tensor.to(like.dtype), requires_grad=False)
    return host


def _bias(host: nn.Module) -> Tensor | None:
    return None if isinstance(host, nn.MultiheadAttention) else cast("Tensor | None", getattr(host, "bias", None))


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double()


class ConvolutionByRule(nn.Conv2d):
    """A convolution whose padding follows a function `(module, x, weight) -> Tensor`, which leaves out the bias."""

    def __init__(self, like: nn.Conv2d, convolve: Convolve) -> None:
        super().__init__(**_geometry(like))
        public = {name: value for name, value in vars(like).items() if not name.startswith("_")}
        self.__dict__.update({name: value for name, value in public.items() if name != "train"})
        self.convolve = convolve
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        convolved = self.convolve(self, x, self.weight)
        return convolved if self.bias is None else convolved + self.bias.view(-1, 1, 1)


def _geometry(host: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {name: getattr(host, name) for name in names}


def _plain(host: nn.Conv2d, convolve: Convolve) -> nn.Conv2d:
    """Make an `nn.Conv2d` of the host's shape where the host pads like one, else a `ConvolutionByRule`."""
    plain = nn.Conv2d(**_geometry(host), bias=False, padding_mode=cast(Any, host.padding_mode))
    chosen = plain if _same_rule(host, convolve) else ConvolutionByRule(host, convolve)
    chosen.training = host.training
    return chosen.to(host.weight.device)


def _same_rule(host: nn.Conv2d, convolve: Convolve) -> bool:
    """Return whether the rule agrees with `nn.Conv2d` on an even and an odd size."""
    weight = host.weight.detach().float()
    reach = max(d * (k - 1) for d, k in zip(host.dilation, host.kernel_size, strict=True))
    for size in (2 * reach + 8, 2 * reach + 9):
        x = torch.linspace(-1, 1, host.in_channels * size * size, device=weight.device).view(1, -1, size, size)
        ruled = convolve(host, x, weight)
        plain = F.conv2d(x, weight, None, host.stride, cast(Any, host.padding), host.dilation, host.groups)
        if ruled.shape != plain.shape or not torch.allclose(ruled, plain, atol=1e-4):
            return False
    return True
