"""AdaptFormer, Convpass and Conv-Adapter against their equations and counts."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import MNASNet

from visionadapt.adapters import AdaptFormer, ConvAdapter, Convpass, attach
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit


@pytest.mark.slow
def test_adaptformer_has_the_papers_number_of_parameters_on_vit_base() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
    sites = AdaptFormer().own_places(sites_of(model))
    layers = [AdaptFormer(rank=64).build(site) for site in sites]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == 1_189_632


def test_adaptformer_is_parallel_to_the_mlp() -> None:
    model = vit(depth=1)
    done = attach(model, AdaptFormer(rank=3, scale=0.5), sites=sites_of(model))
    assert done.sites == ("blocks.0.mlp",)
    randomise(model)
    block, plain = model.blocks[0], vit(depth=1).blocks[0]
    layer = block.mlp.visionadapt_adapters["default"]
    x = torch.randn(2, 5, 24)
    middle = x + plain.attn(plain.norm1(x))
    given = plain.norm2(middle)
    change = F.linear(F.relu(F.linear(given, layer.down.weight, layer.down.bias)), layer.up.weight, layer.up.bias)
    torch.testing.assert_close(block(x), middle + plain.mlp(given) + 0.5 * change)


def test_convpass_convolves_patches_as_a_map_and_prefix_tokens_separately() -> None:
    layer = Convpass(rank=2, activation="identity").build(Site("b", nn.Identity(), "block", "NLC", 4, prefix_tokens=2))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 2 + 9, 4)
    low = F.linear(x, layer.down.weight, layer.down.bias)
    square = low[:, 2:].reshape(3, 3, 3, 2).permute(0, 3, 1, 2)
    convolved = layer.convolution(square).permute(0, 2, 3, 1).reshape(3, 9, 2)
    alone = torch.stack([layer.convolution(low[:, i, :, None, None])[..., 0, 0] for i in range(2)], dim=1)
    expected = x + F.linear(torch.cat([alone, convolved], dim=1), layer.up.weight, layer.up.bias)
    torch.testing.assert_close(layer(x, x, nn.Identity()), expected)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convpass_on_maps_equals_that_on_tokens(layout: str) -> None:
    tokens = Convpass(rank=2).build(Site("b", nn.Identity(), "block", "NLC", 4))
    for parameter in tokens.parameters():
        nn.init.normal_(parameter)
    maps = Convpass(rank=2).build(Site("b", nn.Identity(), "block", layout, 4))
    maps.load_state_dict({key: value.view_as(maps.state_dict()[key]) for key, value in tokens.state_dict().items()})
    x = torch.randn(3, 5, 5, 4)
    expected = tokens(x.flatten(1, 2), x.flatten(1, 2), nn.Identity()).view_as(x)
    given = x if layout == "NHWC" else x.permute(0, 3, 1, 2)
    output = maps(given, given, nn.Identity())
    torch.testing.assert_close(output if layout == "NHWC" else output.permute(0, 2, 3, 1), expected)


def test_convpass_places_and_count() -> None:
    model = vit(depth=2)
    done = attach(model, Convpass(rank=8), sites=sites_of(model))
    assert set(done.sites) == {f"blocks.{i}.{part}" for i in range(2) for part in ("attn", "mlp")}
    assert done.trainable == 4 * (2 * 8 * 24 + 8 + 24 + 9 * 64 + 8)
    before = vit(depth=2)(pixels())
    assert torch.equal(model(pixels()), before)


@pytest.mark.parametrize(
    ("groups", "reduction", "filters"), [(1, 4, 4), (4, 2, 8), (4, 8, 2), (16, 4, 4), (1, 3, 16), (2, 4, 4)]
)
def test_conv_adapter_sums_groups_of_channels(groups: int, reduction: int, filters: int) -> None:
    torch.manual_seed(0)
    host = nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=groups)
    layer = ConvAdapter(reduction=reduction, activation="identity").build(Site("c", host, "conv", "NCHW", 32))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    count = 16 * 9 + filters * 32 + 32
    assert sum(parameter.numel() for parameter in layer.parameters()) == count
    x = torch.randn(2, 16, 9, 9)
    kernel = layer.depthwise.view(filters, 16 // filters, 3, 3)
    hidden = F.conv2d(x, kernel, stride=2, padding=1, groups=filters)
    expected = host(x) + layer.scale.view(-1, 1, 1) * F.conv2d(hidden, layer.pointwise)
    torch.testing.assert_close(layer(x, host(x), host), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_conv_adapter_is_parallel_to_spatial_convolutions() -> None:
    model = timm.create_model("resnet26", num_classes=2).eval()
    x = pixels(size=32)
    before = model(x)
    done = attach(model, ConvAdapter(blocks="last:1"))
    assert done.sites == ("layer4.1.conv2",)
    assert torch.equal(model(x), before)
    with pytest.raises(AdapterError, match=r"ConvAdapter .* fc: "):
        attach(model, ConvAdapter(), where="fc", name="b")


@pytest.mark.parametrize("method", [AdaptFormer, Convpass])
def test_an_mlp_whose_map_shrinks_is_left_out_though_its_channels_stay(method: type) -> None:
    model = MNASNet(0.25, 3).eval()
    done = attach(model, method())
    assert "layers.8.1.layers" in done.sites
    assert "layers.8.0.layers" not in done.sites  # eight channels in and out, with a stride of 2
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("method", [AdaptFormer, Convpass, ConvAdapter])
def test_drop_path_skips_whole_samples_only_in_training(method: type) -> None:
    torch.manual_seed(0)
    host = nn.Conv2d(4, 4, 3, padding=1)
    layer = method(drop_path=0.25).build(Site("c", host, "conv", "NCHW", 4))
    randomise(layer)
    x = torch.randn(1, 4, 5, 5).expand(400, -1, -1, -1)
    plain = torch.zeros(400, 4, 5, 5)
    change = layer.eval()(x, plain, host)[0]
    trained = layer.train()(x, plain, host)
    skipped = trained.flatten(1).abs().amax(1) == 0
    assert 60 < skipped.sum() < 140
    torch.testing.assert_close(trained[~skipped], (change / 0.75).expand(int((~skipped).sum()), -1, -1, -1))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (AdaptFormer, {"rank": 0}),
        (AdaptFormer, {"dropout": 1.0}),
        (AdaptFormer, {"drop_path": 1.0}),
        (Convpass, {"drop_path": -0.1}),
        (ConvAdapter, {"drop_path": 1.0}),
        (Convpass, {"rank": 0}),
        (Convpass, {"activation": "no"}),
        (ConvAdapter, {"reduction": 0}),
    ],
)
def test_wrong_settings_are_refused(method: type, wrong: dict[str, object]) -> None:
    with pytest.raises(AdapterError, match=next(iter(wrong))):
        method(**wrong)
