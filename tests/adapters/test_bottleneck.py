"""The bottleneck against its equation, the paper's parameter count, and numbers worked by hand."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from visionadapt.adapters import Bottleneck, attach
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit


@pytest.mark.slow
def test_adapter_plus_has_the_papers_number_of_parameters_on_vit_base() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
    sites = sites_of(model)
    layers = [Bottleneck(rank=8).build(site) for site in sites if site.kind == "block"]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == 165_984


def test_one_channel_worked_by_hand() -> None:
    layer = Bottleneck(rank=1, activation="relu").build(Site("b", nn.Identity(), "block", "NLC", 1))
    with torch.no_grad():
        for name, value in {
            "down.weight": 2.0,
            "down.bias": 1.0,
            "up.weight": 3.0,
            "up.bias": -1.0,
            "scale": 0.5,
        }.items():
            layer.get_parameter(name).fill_(value)
    y = torch.tensor([[[1.0], [-2.0]]])
    # relu(2·1 + 1) = 3, 3·3 − 1 = 8, 1 + 0.5·8 = 5; relu(2·−2 + 1) = 0, −1, −2 − 0.5 = −2.5
    assert layer(y, y, nn.Identity()).flatten().tolist() == [5.0, -2.5]


@pytest.mark.parametrize("norm", [False, True])
def test_layouts_compute_the_same_map(norm: bool) -> None:
    torch.manual_seed(0)
    tokens = Bottleneck(rank=3, norm=norm).build(Site("b", nn.Identity(), "block", "NHWC", 6))
    for parameter in tokens.parameters():
        nn.init.normal_(parameter)
    maps = Bottleneck(rank=3, norm=norm).build(Site("b", nn.Identity(), "block", "NCHW", 6))
    maps.load_state_dict({key: value.view_as(maps.state_dict()[key]) for key, value in tokens.state_dict().items()})
    y = torch.randn(2, 4, 5, 6)
    expected = y + tokens.scale * F.linear(
        F.gelu(
            F.linear(
                F.layer_norm(y, (6,), tokens.norm.weight, tokens.norm.bias) if norm else y,
                tokens.down.weight,
                tokens.down.bias,
            )
        ),
        tokens.up.weight,
        tokens.up.bias,
    )
    torch.testing.assert_close(tokens(y, y, nn.Identity()), expected)
    moved = y.permute(0, 3, 1, 2)
    from_maps = maps(moved, moved, nn.Identity()).permute(0, 2, 3, 1)
    torch.testing.assert_close(from_maps, expected)


def test_the_down_projection_is_cut_at_two_deviations() -> None:
    layer = Bottleneck(rank=64).build(Site("b", nn.Identity(), "block", "NLC", 512))
    assert layer.down.weight.abs().max() <= 0.02
    assert layer.down.weight.std().item() == pytest.approx(0.0088, rel=0.02)  # 0.01 · √(1 − 4φ(2)/(2Φ(2) − 1))
    assert not layer.up.weight.any()


@pytest.mark.parametrize(
    ("placement", "names"),
    [
        ("post", ["blocks.0", "blocks.1"]),
        ("pfeiffer", ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]),
        ("houlsby", ["blocks.0.attn.proj", "blocks.0.mlp.fc2", "blocks.1.attn.proj", "blocks.1.mlp.fc2"]),
    ],
)
def test_placements(placement: str, names: list[str]) -> None:
    model = vit(depth=2)
    before = model(pixels())
    done = attach(model, Bottleneck(rank=2, placement=placement), sites=sites_of(model))
    assert list(done.sites) == names
    assert torch.equal(model(pixels()), before)
    randomise(model)
    assert not torch.allclose(model(pixels()), before)


def test_houlsby_acts_before_the_residual_is_added() -> None:
    model = vit(depth=1)
    attach(model, Bottleneck(rank=2, placement="houlsby"), sites=sites_of(model))
    randomise(model)
    block = model.blocks[0]
    after_attention = block.attn.proj.visionadapt_adapters["default"]
    after_mlp = block.mlp.fc2.visionadapt_adapters["default"]
    x = torch.randn(2, 5, 24)
    inner = vit(depth=1).blocks[0]
    y = x + after_attention(x, inner.attn(inner.norm1(x)), inner)
    y = y + after_mlp(y, inner.mlp(inner.norm2(y)), inner)
    torch.testing.assert_close(block(x), y)


def test_drop_path_skips_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = Bottleneck(rank=2, drop_path=0.25).build(Site("b", nn.Identity(), "block", "NLC", 4)).train()
    nn.init.ones_(layer.up.bias)
    y = torch.zeros(4000, 3, 4)
    change = layer(y, y, nn.Identity())
    assert change.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(change.amin((1, 2)), change.amax((1, 2)))
    assert change.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(y, y, nn.Identity()), torch.ones_like(y))


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"placement": "pre"}, {"dropout": 1.0}, {"drop_path": -0.1}, {"activation": "tanhh"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AdapterError, match=next(iter(wrong))):
        Bottleneck(**wrong)
