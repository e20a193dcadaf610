"""Features of several blocks: what they are in every layout of the blocks' outputs, and that they pass every cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from visionadapt.backbones import Backbone, load
from visionadapt.backbones.feature_sets import moments

from .conftest import smaller

EXAMPLES = {"resnet18": 64, "swin_tiny_patch4_window7_224": 64, "vit_tiny_patch16_224": 64, "tf_efficientnet_lite0": 64}


@pytest.fixture(params=EXAMPLES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    with smaller(request.param):
        found = load(request.param, "none", EXAMPLES[request.param])
    found.use_features("blocks")
    return found


@pytest.mark.parametrize(("layout", "axes"), [("NCHW", (2, 3)), ("NHWC", (1, 2)), ("NLC", 1)])
def test_moments_are_numpys_over_all_positions(layout: str, axes: tuple[int, ...] | int) -> None:
    x = torch.randn((2, 6, 5, 4) if layout != "NLC" else (2, 9, 4), generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = moments(x, layout, 0)  # type: ignore[arg-type]
    expected = np.concatenate([x.numpy().mean(axes), x.numpy().std(axes)], 1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_tokens_that_are_no_patches_do_not_count() -> None:
    x = torch.randn(2, 9, 4)
    other = x.clone()
    other[:, :2] = 100
    assert torch.equal(moments(x, "NLC", 2), moments(other, "NLC", 2))


def test_a_constant_channel_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    moments(x, "NCHW", 0).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@torch.no_grad()
def test_they_follow_the_models_own_features_and_are_those_of_some_blocks(backbone: Backbone) -> None:
    pixels = torch.randn(backbone.blank_pixels(2).shape, generator=torch.Generator().manual_seed(0))
    outputs: list[Tensor] = []
    hooks = [
        block.module.register_forward_hook(lambda module, given, output: outputs.append(output))
        for block in backbone.anatomy.blocks
    ]
    found = backbone(pixels)
    for hook in hooks:
        hook.remove()
    assert torch.equal(found[:, : backbone.own_features], backbone.model(pixels))
    rest, layout = found[:, backbone.own_features :], backbone.anatomy.layout
    used = 0
    for output in outputs:
        values = output[:, backbone.anatomy.prefix_tokens :].numpy() if layout == "NLC" else output.numpy()
        axes = {"NCHW": (2, 3), "NHWC": (1, 2), "NLC": (1,)}[layout]
        expected = np.concatenate([values.mean(axes), values.std(axes)], 1)
        own = rest[:, used : used + expected.shape[1]].numpy()
        used += expected.shape[1] if own.shape == expected.shape and np.allclose(own, expected, atol=1e-4) else 0
    assert used == rest.shape[1] > 0
    np.testing.assert_allclose(rest[:, -expected.shape[1] :].numpy(), expected, atol=1e-4)  # the last block is one


@pytest.mark.slow
@torch.no_grad()
def test_every_cut_gives_the_same_features(backbone: Backbone) -> None:
    pixels = torch.randn(backbone.blank_pixels(2).shape, generator=torch.Generator().manual_seed(0))
    expected, last = backbone(pixels), len(backbone.segments)
    assert expected.shape == (2, backbone.num_features)
    states = [{"x": pixels}]
    for cut in range(last):
        states.append(backbone.run(states[-1], cut, cut + 1))
    for cut, state in enumerate(states):
        assert torch.equal(backbone.run(state, cut, last)["x"], expected), f"cut {cut}"
    backbone.use_features("last")
    for cut, state in enumerate(states[:-1]):
        assert torch.equal(backbone.run(state, cut, last)["x"], backbone.model(pixels)), f"cut {cut}"


def test_the_set_can_be_changed_back() -> None:
    backbone = load("test_efficientnet", "none")
    own = backbone.num_features
    backbone.use_features("blocks")
    assert backbone.num_features > own == backbone.own_features
    backbone.use_features("last")
    assert backbone.num_features == own
