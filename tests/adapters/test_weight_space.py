"""DoRA, SSF, (IA)³ and RepAdapter against their equations, against PEFT, and merged into every kind of convolution."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters import IA3, SSF, BitFit, Bottleneck, DoRA, LoRA, RepAdapter, attach, detach, merge, mixed
from visionadapt.adapters.sublayers import opening_projections
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit
from .peft_layers import with_peft


def same_padding(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """TensorFlow's padding for an even image size, kernel 3 and stride 2: one row and column at the far end."""
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, None, module.stride)


def standardised(module: nn.Module) -> Tensor:
    flat = module.weight.flatten(1)
    flat = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + module.eps).sqrt()
    gain = module.gain.flatten(1) * module.scale if isinstance(module, ScaledStdConv2d) else 1.0
    return (flat * gain).view_as(module.weight)


HOSTS: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "linear": (nn.Linear(4, 6), {}),
    "linear without bias": (nn.Linear(4, 6, bias=False), {}),
    "convolution": (nn.Conv2d(4, 6, 3, padding=1), {}),
    "pointwise": (nn.Conv2d(4, 6, 1), {}),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), {}),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), {}),
    "dilated": (nn.Conv2d(4, 6, 3, padding=2, dilation=2), {}),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), {}),
    "same": (Conv2dSame(4, 6, 3, stride=2), {"convolve": same_padding}),
    "standardised": (StdConv2d(4, 6, 3), {"effective_weight": standardised}),
    "scaled standardised": (ScaledStdConv2d(4, 6, 3, gain_init=2.0), {"effective_weight": standardised}),
}
METHODS = {"lora": LoRA(rank=2), "dora": DoRA(rank=2), "ssf": SSF(), "ia3": IA3(), "rep": RepAdapter(rank=2)}


def hosted(name: str) -> tuple[nn.Sequential, Site, Tensor]:
    module, fields = HOSTS[name]
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(module)).eval()
    linear = isinstance(module, nn.Linear)
    site = Site("0", model[0], "linear" if linear else "conv", "NLC" if linear else "NCHW", module.weight.shape[0])
    return model, replace(site, **fields), torch.randn(2, 5, 4) if linear else torch.randn(2, 4, 8, 8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", HOSTS)
def test_merging_is_exact_and_leaves_the_model_as_it_is(host: str, method: str) -> None:
    model, site, x = hosted(host)
    plain, bits = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    if method == "rep" and host in ("grouped", "depthwise"):
        with pytest.raises(AdapterError, match=r"RepAdapter .* 0: "):
            attach(model, METHODS[method], where="0", sites=[site])
        return
    attach(model, METHODS[method], where="0", sites=[site])
    assert torch.equal(model(x), plain)
    randomise(model)
    expected = model(x)
    assert not torch.allclose(expected, plain)
    merged = merge(model)
    torch.testing.assert_close(merged(x), expected, rtol=1e-5, atol=1e-5)
    assert all("adapters" not in key for key in merged.state_dict())
    assert (type(merged[0]) is nn.Conv2d) == (host not in ("linear", "linear without bias", "same"))
    assert torch.equal(model(x), expected)
    detach(model)
    assert all(torch.equal(value, bits[key]) for key, value in model.state_dict().items())


def test_a_standardised_convolution_keeps_a_custom_padding_rule() -> None:
    model, site, x = hosted("standardised")
    site = replace(site, convolve=same_padding)
    model[0].forward = lambda x: same_padding(model[0], x, standardised(model[0]))
    attach(model, LoRA(rank=2), where="0", sites=[site])
    randomise(model)
    expected = model(x)
    del model[0].forward
    torch.testing.assert_close(merge(model)(x), expected, rtol=1e-5, atol=1e-5)


def test_adapters_on_one_host_merge_in_the_order_of_acting() -> None:
    model, site, x = hosted("convolution")
    for name, method in {"a": LoRA(rank=2), "b": SSF(), "c": RepAdapter(rank=2), "d": RepAdapter(rank=4)}.items():
        attach(model, method, where="0", sites=[site], name=name)
    randomise(model)
    torch.testing.assert_close(merge(model)(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_merge_that_is_impossible_is_refused() -> None:
    model = vit()
    with pytest.raises(AdapterError, match="attach one"):
        merge(model)
    attach(model, Bottleneck(rank=2), name="mine")
    with pytest.raises(AdapterError, match=r"'mine' at blocks\.0 .*BottleneckLayer"):
        merge(model)
    model, site, _ = hosted("linear")
    attach(model, LoRA(rank=2), where="0", sites=[site], name="a")
    attach(model, DoRA(rank=2), where="0", sites=[site], name="b")
    with pytest.raises(AdapterError, match="'b' at 0 "):
        merge(model)


def test_a_bfloat16_model_is_merged_with_one_rounding() -> None:
    model, site, _ = hosted("linear")
    model.bfloat16()
    attach(model, LoRA(rank=2), where="0", sites=[site])
    randomise(model)
    layer = model[0].visionadapt_adapters["default"].double()
    weight = dict(model[0].named_parameters())["weight"]
    exact = weight.double() + 4 * layer.up["all"] @ layer.down["all"]
    assert torch.equal(merge(model)[0].weight, exact.bfloat16())


def test_dora_follows_its_equation() -> None:
    model, site, x = hosted("convolution")
    weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    attach(model, DoRA(rank=2, alpha=2), where="0", sites=[site])
    randomise(model)
    layer = model[0].visionadapt_adapters["default"]
    direction = weight + (layer.up["all"] @ layer.down["all"].flatten(1)).view_as(weight)
    changed = layer.length["all"].view(-1, 1, 1, 1) * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(model(x), F.conv2d(x, changed, bias, padding=1), rtol=1e-4, atol=1e-5)


def test_dora_starts_bit_for_bit_in_channels_last_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    before = model(x)
    attach(model, DoRA(rank=2), where="0")
    assert torch.equal(model(x), before)


def test_dora_leaves_a_row_of_zeros_as_it_is() -> None:
    """‖0‖ = 0 has no direction to divide by; the other rows learn, and merging agrees."""
    host = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        host.weight[1] = 0.0
    net, x = nn.Sequential(host), torch.randn(2, 3, 5, 5)
    before = net(x)
    attach(net, DoRA(rank=2), where="0")
    assert torch.equal(net(x), before)
    net(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)
    randomise(net)
    learned = net(x)
    assert learned.isfinite().all()
    assert not torch.equal(learned[:, 0], before[:, 0])
    merge(net)
    torch.testing.assert_close(net(x), learned, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["*.qkv", "*.fc1"])
def test_dora_equals_peft_on_vit(where: str) -> None:
    ours, theirs = vit(depth=2), vit(depth=2)
    theirs = with_peft(theirs, "LoraConfig", r=4, lora_alpha=6, target_modules=rf".*{where[1:]}", use_dora=True)
    _compare_dora(ours, theirs, DoRA(rank=4, alpha=6), f"blocks{where}", pixels())


def test_dora_equals_peft_on_a_resnet() -> None:
    torch.manual_seed(0)
    ours = timm.create_model("resnet10t", num_classes=3).eval()
    theirs = copy.deepcopy(ours)
    theirs = with_peft(theirs, "LoraConfig", r=4, lora_alpha=6, target_modules=r"layer\d.*conv\d", use_dora=True)
    _compare_dora(ours, theirs, DoRA(rank=4, alpha=6), "layer*.conv?", pixels(size=32))


def _compare_dora(ours: nn.Module, theirs: nn.Module, method: DoRA, where: str, x: Tensor) -> None:
    attach(ours, method, where=where)
    randomise(ours)
    pairs = []
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if hasattr(module, "lora_magnitude_vector"):
                layer = ours.get_submodule(name).visionadapt_adapters["default"]
                pairs += [
                    (layer.down["all"], module.lora_A["default"].weight),
                    (layer.up["all"], module.lora_B["default"].weight),
                    (layer.length["all"], module.lora_magnitude_vector["default"].weight),
                ]
        for own, other in pairs:
            other.copy_(own.view_as(other))
    _same_outputs_and_gradients(ours, theirs, pairs, x)


def _same_outputs_and_gradients(
    ours: nn.Module, theirs: nn.Module, pairs: list[tuple[Tensor, Tensor]], x: Tensor
) -> None:
    assert pairs
    outputs = [model(x) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad.view_as(own), rtol=1e-3, atol=1e-4)


def test_ia3_equals_peft_on_vit() -> None:
    ours, theirs = vit(depth=2), vit(depth=2)
    theirs = with_peft(theirs, "IA3Config", target_modules=r".*(attn\.proj|fc2)", feedforward_modules=r".*fc2")
    attach(ours, IA3(), where="*.attn.proj,*.fc2")
    _compare_ia3(ours, theirs, pixels())


def test_ia3_equals_peft_on_a_resnet() -> None:
    torch.manual_seed(0)
    ours = timm.create_model("resnet10t", num_classes=3).eval()
    theirs = copy.deepcopy(ours)
    theirs = with_peft(theirs, "IA3Config", target_modules=r"layer[234].*conv1", feedforward_modules=[])
    attach(ours, IA3(), where="layer[234]*.conv1")
    _compare_ia3(ours, theirs, pixels(size=32))


def _compare_ia3(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    randomise(ours)
    pairs = []
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if hasattr(module, "ia3_l"):
                layer = ours.get_submodule(name).visionadapt_adapters["default"]
                pairs.append((layer.factor["all"], module.ia3_l["default"]))
                pairs[-1][1].copy_(pairs[-1][0].view_as(pairs[-1][1]))
    _same_outputs_and_gradients(ours, theirs, pairs, x)


def test_ia3_scales_keys_values_and_inner_units() -> None:
    model = vit(depth=1)
    done = attach(model, IA3(), sites=sites_of(model))
    assert list(done.sites) == ["blocks.0.attn.qkv", "blocks.0.mlp.fc2"]
    assert done.trainable == 2 * 24 + 96
    randomise(model)
    block, x = model.blocks[0], torch.randn(2, 5, 24)
    factor = block.attn.qkv.visionadapt_adapters["default"].factor
    q, k, v = F.linear(x, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=-1)
    torch.testing.assert_close(block.attn.qkv(x), torch.cat([q, factor["k"] * k, factor["v"] * v], dim=-1))
    inner = torch.randn(2, 5, 96)
    factor = block.mlp.fc2.visionadapt_adapters["default"].factor["all"]
    torch.testing.assert_close(block.mlp.fc2(inner), F.linear(inner * factor, block.mlp.fc2.weight, block.mlp.fc2.bias))


@pytest.mark.slow
def test_ssf_has_the_papers_number_of_parameters_on_vit_base() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
    layers = [SSF().build(site) for site in SSF().own_places(sites_of(model))]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == 205_824


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, affine=False)])
def test_ssf_merges_into_a_norm_that_has_a_weight(norm: nn.Module) -> None:
    model = nn.Sequential(norm).eval()
    if not isinstance(norm.weight, Tensor):
        with pytest.raises(AdapterError, match=r"SSF .* 0: "):
            attach(model, SSF(), where="0")
        return
    attach(model, SSF(), where="0")
    randomise(model)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(merge(model)(x), model(x), rtol=1e-5, atol=1e-6)
    detach(model)


def test_rep_adapter_follows_its_equation() -> None:
    model, site, x = hosted("linear")
    done = attach(model, RepAdapter(rank=4, groups=2, scale=0.5), where="0", sites=[site])
    assert done.trainable == 4 * 4 + 4 * 4 // 2 + 4 + 4
    randomise(model)
    layer = model[0].visionadapt_adapters["default"]
    hidden = x @ layer.down.T + layer.down_bias
    up = torch.cat([hidden[..., :2] @ layer.up[:2].T, hidden[..., 2:] @ layer.up[2:].T], dim=-1) + layer.up_bias
    plain = dict(model[0].named_parameters())
    expected = F.linear(x + 0.5 * up, plain["weight"], plain["bias"])
    torch.testing.assert_close(model(x), expected)


def test_rep_adapter_goes_before_attention_and_mlp() -> None:
    names = [site.name for site in opening_projections(sites_of(vit(depth=1)))]
    assert names == ["blocks.0.attn.qkv", "blocks.0.mlp.fc1"]


def test_bitfit_merges_by_leaving_the_trained_biases() -> None:
    model, site, x = hosted("convolution")
    attach(model, BitFit(), sites=[site])
    randomise(model)
    merged = merge(model)
    assert torch.equal(merged(x), model(x))
    assert list(merged.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.slow
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
    dora=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_convolution_merges(
    groups: int, kernel: tuple[int, int], stride: int, dilation: int, padding: int, bias: bool, dora: bool
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)
    model, x = nn.Sequential(convolution).eval(), torch.randn(2, 4, 9, 8)
    plain = model(x)
    attach(model, DoRA(rank=2) if dora else LoRA(rank=2), where="0")
    assert torch.equal(model(x), plain)
    randomise(model)
    torch.testing.assert_close(merge(model)(x), model(x), rtol=1e-4, atol=1e-5)


class Borrower(nn.Module):
    """A parent that uses its host's weight and bias by calling it, or by reading them."""

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.host = host
        self.calls = True

    def forward(self, x: Tensor) -> Tensor:
        if self.calls:
            return self.host(x)
        weight, bias = self.borrowed()
        if weight.dim() == 2:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.host.stride, self.host.padding, self.host.dilation, self.host.groups)

    def borrowed(self) -> tuple[Tensor, Tensor]:
        return tuple(getattr(self.host, name) for name in ("weight", "bias"))


BORROWED = ("linear", "linear without bias", "convolution", "pointwise", "grouped", "depthwise", "dilated")


@pytest.mark.parametrize("method", ["lora", "dora", "rep"])
@pytest.mark.parametrize("host", BORROWED)
def test_reading_the_weight_equals_calling_the_host(host: str, method: str) -> None:
    inner, site, x = hosted(host)
    if method == "rep" and host in ("grouped", "depthwise"):
        return
    model = Borrower(inner[0])
    site = replace(site, name="host")
    for name in "ab" if method != "dora" else "a":
        attach(model, METHODS[method], where="host", sites=[site], name=name)
    randomise(model)
    outputs, gradients = [], []
    for model.calls in (True, False):
        model.zero_grad()
        outputs.append(model(x))
        outputs[-1].square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    for model.calls in (True, False):
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), merge(model)):
            torch.testing.assert_close(copied(x), outputs[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(AdapterError, match="host"), mixed(model, ["a", None]):
        model(x)
    detach(model)
    assert type(model.host) is type(HOSTS[host][0])


@pytest.mark.parametrize("computed", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_weight_that_is_computed_is_not_merged(computed: Any) -> None:
    net = nn.Sequential(computed(nn.Linear(8, 8)), nn.GELU(), nn.Linear(8, 4)).eval()
    attach(net, LoRA(rank=2), where="0")
    with pytest.raises(AdapterError, match="remove_parametrizations"):
        merge(net)
