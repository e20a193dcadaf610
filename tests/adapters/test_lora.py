"""LoRA against x (W + ΔW), for every kind of linear layer and convolution, and against PEFT."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters import LoRA, attach, detach, find_sites
from visionadapt.adapters.pointwise import is_pointwise, mix_channels
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit
from .peft_layers import with_peft

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "strided": nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "grouped": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 4, 5, padding=2, groups=4),
    "dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "oblong": nn.Conv2d(4, 6, (1, 5), padding=(0, 2)),
}


@pytest.mark.slow
def test_count_on_vit_base() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
    layers = [LoRA(rank=8).build(site) for site in LoRA().own_places(sites_of(model))]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == 294_912


def _single(module: nn.Module, **fields: object) -> tuple[nn.Sequential, Site]:
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(module))
    kind, layout = ("conv", "NCHW") if isinstance(module, nn.Conv2d) else ("linear", "NLC")
    return model, Site("0", model[0], kind, layout, module.weight.shape[0], **fields)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_equals_the_same_one_with_the_changed_weight(name: str, stabilised: bool) -> None:
    model, site = _single(CONVOLUTIONS[name])
    x = torch.randn(2, 4, 9, 9)
    before = model(x)
    attach(model, LoRA(rank=4, alpha=6, rank_stabilised=stabilised), where="0", sites=[site])
    assert torch.equal(model(x), before)
    randomise(model)
    layer = model[0].visionadapt_adapters["default"]
    scale = 6 / 2 if stabilised else 6 / 4
    changed = copy.deepcopy(CONVOLUTIONS[name])
    with torch.no_grad():
        change = layer.up["all"] @ layer.down["all"].flatten(1)
        changed.weight.copy_(CONVOLUTIONS[name].weight + scale * change.view_as(changed.weight))
    torch.testing.assert_close(model(x), changed(x), rtol=1e-4, atol=1e-5)


def _same(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """TensorFlow's padding for an even image size, kernel 3 and stride 2: one row and column at the far end."""
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, None, module.stride)


def test_a_convolution_with_a_custom_padding_rule_needs_that_rule() -> None:
    module = Conv2dSame(4, 6, 3, stride=2)
    model, site = _single(module)
    with pytest.raises(AdapterError, match=r"Conv2dSame.*`convolve`"):
        attach(model, LoRA(), where="0", sites=[site])
    model, site = _single(module, convolve=_same)
    attach(model, LoRA(rank=2), where="0", sites=[site])
    randomise(model)
    layer = model[0].visionadapt_adapters["default"]
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed.weight.add_(4 * (layer.up["all"] @ layer.down["all"].flatten(1)).view_as(module.weight))
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(model(x), changed(x), rtol=1e-4, atol=1e-5)


def _plain(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)


@pytest.mark.parametrize("module", [StdConv2d(4, 6, 3), ScaledStdConv2d(4, 6, 3, gain_init=2.0)])
def test_a_standardised_convolution_is_changed_after_standardisation(module: nn.Conv2d) -> None:
    model, site = _single(module, convolve=_plain)
    attach(model, LoRA(rank=2, alpha=2), where="0", sites=[site])
    randomise(model)
    layer = model[0].visionadapt_adapters["default"]
    flat = module.weight.flatten(1)
    standard = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + module.eps).sqrt()
    if isinstance(module, ScaledStdConv2d):
        standard = standard * (module.gain.flatten(1) * module.scale)
    weight = standard.view_as(module.weight) + (layer.up["all"] @ layer.down["all"].flatten(1)).view_as(module.weight)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(model(x), F.conv2d(x, weight, module.bias, padding=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", ["qv", "k", "qkv"])
def test_rows_of_a_fused_weight(rows: str) -> None:
    model = vit(depth=1)
    attach(model, LoRA(rank=2, alpha=2, rows=rows), sites=sites_of(model))
    randomise(model)
    qkv = model.blocks[0].attn.qkv
    layer = qkv.visionadapt_adapters["default"]
    assert set(layer.up) == set(rows)
    changed = qkv.weight
    weight = dict(qkv.named_parameters())["weight"].clone()
    for part in rows:
        start = 24 * "qkv".index(part)
        weight[start : start + 24] += layer.up[part] @ layer.down[part]
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(changed, weight)
    torch.testing.assert_close(qkv(x), F.linear(x, weight, qkv.bias))


def test_a_weight_that_is_read_but_never_called_changes_and_is_restored() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.inner.weight)

    model = Reader()
    original, x = model.inner.weight, torch.randn(3, 4)
    bits = original.detach().clone()
    attach(model, LoRA(rank=2), where="inner", sites=[Site("inner", model.inner, "linear", "NLC", 4, called=False)])
    assert torch.equal(model(x), F.linear(x, bits))
    randomise(model)
    layer = model.inner.visionadapt_adapters["default"]
    torch.testing.assert_close(model(x), F.linear(x, bits + 4 * layer.up["all"] @ layer.down["all"]))
    twin = copy.deepcopy(model)
    detach(model)
    assert model.inner.weight is original
    assert torch.equal(original, bits)
    assert type(model.inner) is nn.Linear
    assert not torch.allclose(twin(x), model(x))


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("where", ["qkv", "fc1", "proj"])
def test_equals_peft_on_vit(where: str, stabilised: bool) -> None:
    ours, theirs = vit(depth=2), vit(depth=2)
    layers = rf".*blocks.*\.{where}"
    theirs = with_peft(theirs, "LoraConfig", r=4, lora_alpha=6, target_modules=layers, use_rslora=stabilised)
    attach(ours, LoRA(rank=4, alpha=6, rank_stabilised=stabilised), where=f"blocks.*.{where}")
    _compare(ours, theirs, pixels())


def test_equals_peft_on_a_resnet() -> None:
    torch.manual_seed(0)
    ours = timm.create_model("resnet10t", num_classes=3).eval()
    theirs = copy.deepcopy(ours)
    theirs = with_peft(theirs, "LoraConfig", r=4, lora_alpha=6, target_modules=r"layer\d.*conv\d")
    attach(ours, LoRA(rank=4, alpha=6), where="layer*.conv?", sites=find_sites(ours))
    _compare(ours, theirs, pixels(size=32))


def _compare(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Copy our weights into PEFT's layers and compare outputs and gradients."""
    randomise(ours)
    pairs = []
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if hasattr(module, "lora_A"):
                layer = ours.get_submodule(name).visionadapt_adapters["default"]
                for own, other in ((layer.down["all"], module.lora_A), (layer.up["all"], module.lora_B)):
                    other["default"].weight.copy_(own.view_as(other["default"].weight))
                    pairs.append((own, other["default"].weight))
    assert pairs
    outputs = [model(x) for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad.view_as(own), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"rows": "x"}, {"dropout": 1.0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AdapterError, match=next(iter(wrong))):
        LoRA(**wrong)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("with_bias", [False, True])
def test_channels_are_mixed_as_by_a_convolution(layout: torch.memory_format, with_bias: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight, bias, up = (
        torch.randn(*shape, dtype=torch.float64, generator=random, requires_grad=True)
        for shape in ((2, 5, 3, 4), (7, 5), (7,), (2, 7, 3, 4))
    )
    given, results = (bias,) if with_bias else (), []
    for mixed in (
        mix_channels(x.contiguous(memory_format=layout), weight, *given),
        nn.functional.conv2d(x, weight[:, :, None, None], *given),
    ):
        gradients = torch.autograd.grad(mixed, (x, weight, *given), up)
        results.append((mixed, *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(mix_channels(x.contiguous(memory_format=layout), weight, *given), results[1][0])


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        (nn.Conv2d(4, 6, 1), True),
        (nn.Conv2d(4, 6, 1, stride=2), False),
        (nn.Conv2d(4, 6, 3), False),
        (nn.Conv2d(4, 6, 1, padding=1), False),
        (nn.Conv2d(4, 6, 1, groups=2), False),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_convolution_is_changed_as_by_the_merged_weight(
    host: nn.Conv2d, alone: bool, layout: torch.memory_format
) -> None:
    assert is_pointwise(host) == alone
    net, merged = nn.Sequential(copy.deepcopy(host)), copy.deepcopy(host)
    attach(net, LoRA(rank=2, alpha=2), where="0")
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    (down,) = (parameter for name, parameter in trained.items() if ".down." in name)
    (up,) = (parameter for name, parameter in trained.items() if ".up." in name)
    nn.init.normal_(up)
    with torch.no_grad():
        merged.weight += torch.einsum("or,r...->o...", up, down)
    x = torch.randn(2, 4, 5, 6).contiguous(memory_format=layout)
    torch.testing.assert_close(net(x), merged(x))
