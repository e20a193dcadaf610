"""Stem → blocks → finish is the model's own forward, bit for bit, wherever it is cut."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.backbones import Backbone, load
from visionadapt.backbones.anatomy import segments
from visionadapt.backbones.families import anatomy_of
from visionadapt.errors import BackboneError

pytestmark = pytest.mark.slow

# blocks per stage: the papers' tables
DEPTHS = {
    "tf_efficientnet_lite0": [1, 2, 2, 3, 3, 4, 1],  # Tan & Le 2019, table 1
    "efficientnet_b0": [1, 2, 2, 3, 3, 4, 1],
    "mobilenetv2_100": [1, 2, 3, 4, 3, 3, 1],  # Sandler et al. 2018, table 2
    "mobilenetv3_large_100": [1, 2, 3, 4, 2, 3],  # Howard et al. 2019, table 1: 15 bottlenecks
    "resnet18": [2, 2, 2, 2],  # He et al. 2016, table 1
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
    "resnext50_32x4d": [3, 4, 6, 3],  # Xie et al. 2017, table 1
    "resnetv2_50x1_bit": [3, 4, 6, 3],
    "dm_nfnet_f0": [1, 2, 6, 3],  # Brock et al. 2021, table 1
    "regnety_002": [1, 1, 4, 7],  # Radosavovic et al. 2020, figure 16
    "convnext_tiny": [3, 3, 9, 3],  # Liu et al. 2022, section 2.2
    "vit_base_patch16_224": [12],  # Dosovitskiy et al. 2021, table 1
    "vit_large_patch16_224": [24],
    "deit_tiny_distilled_patch16_224": [12],
    "beit_base_patch16_224": [12],
    "swin_tiny_patch4_window7_224": [2, 2, 6, 2],  # Liu et al. 2021, section 3.3
    "swin_base_patch4_window7_224": [2, 2, 18, 2],
    "swinv2_tiny_window8_256": [2, 2, 6, 2],
    "maxvit_tiny_tf_224": [2, 2, 5, 2],  # Tu et al. 2022, table 1
}


@torch.no_grad()
def test_every_cut_gives_the_models_own_features(family: Backbone, pixels: Tensor) -> None:
    expected = family.model(pixels)
    assert bool(expected.isfinite().all())
    assert float(expected.std(0).mean()) > 0
    last = len(family.segments)
    state = {"x": pixels}
    for cut in range(last):
        kept = state["x"].clone()
        assert torch.equal(family.run(state, cut, last)["x"], expected), f"cut {cut}"
        assert torch.equal(state["x"], kept), f"the state at cut {cut} was overwritten"
        state = family.run(state, cut, cut + 1)
        assert all(tensor.shape[0] == 2 for tensor in state.values())
    assert torch.equal(state["x"], expected)
    assert torch.equal(family(pixels), expected)
    assert expected.shape == (2, family.num_features)


@pytest.mark.parametrize("name", DEPTHS)
def test_blocks_and_stages_are_those_of_the_paper(name: str) -> None:
    with torch.device("meta"):
        anatomy = anatomy_of(timm.create_model(name, num_classes=0), 224)
    stages = [block.stage for block in anatomy.blocks]
    assert stages == sorted(stages)
    assert [stages.count(stage) for stage in range(max(stages) + 1)] == DEPTHS[name]
    names = [segment.name for segment in segments(anatomy)]
    assert names == ["stem", *(f"block {index}" for index in range(sum(DEPTHS[name]))), "finish"]


@torch.no_grad()
def test_running_a_segment_calls_its_block_once(family: Backbone, pixels: Tensor) -> None:
    called: list[int] = []
    handles = [
        block.module.register_forward_hook(lambda *_, index=index: called.append(index))
        for index, block in enumerate(family.anatomy.blocks)
    ]
    family(pixels)
    for handle in handles:
        handle.remove()
    assert called == list(range(len(handles)))


def test_what_a_hook_adds_after_a_block_learns(family: Backbone, pixels: Tensor) -> None:
    scales = [torch.zeros((), requires_grad=True) for _ in family.anatomy.blocks]
    handles = [
        block.module.register_forward_hook(lambda _, __, output, scale=scale: output + output.sin() * scale)
        for block, scale in zip(family.anatomy.blocks, scales, strict=True)
    ]
    features = family(pixels)
    gradients = torch.autograd.grad((features / features.detach().abs().max()).square().mean(), scales)
    for handle in handles:
        handle.remove()
    assert all(bool(gradient.isfinite()) and float(gradient) != 0 for gradient in gradients)


@torch.no_grad()
def test_cut_shapes_are_what_crosses(family: Backbone, pixels: Tensor) -> None:
    shapes = family.cut_shapes()
    middle = len(shapes) // 2
    crossing = family.run({"x": pixels}, 0, middle)
    assert shapes[middle] == {name: tuple(tensor.shape[1:]) for name, tensor in crossing.items()}
    assert shapes[-1] == {"x": (family.num_features,)}


def test_prefix_tokens_are_class_distillation_and_register_tokens() -> None:
    assert load("vit_small_patch16_224", "none", 32).anatomy.prefix_tokens == 1
    assert load("vit_small_patch14_reg4_dinov2", "none", 28).anatomy.prefix_tokens == 5
    assert load("deit_tiny_distilled_patch16_224", "none", 32).anatomy.prefix_tokens == 2


def test_a_subclass_that_computes_something_else_is_not_treated_as_its_base() -> None:
    class Doubled(ResNet):
        def forward_features(self, x: Tensor) -> Tensor:
            return 2 * super().forward_features(x)

    model = Doubled(BasicBlock, (1, 1, 1, 1), num_classes=0).eval()
    parts = segments(anatomy_of(model, 64))
    x = pixels = torch.randn(3, 3, 64, 64)
    for part in parts:
        x = part(x, {})
    assert len(parts) == 6
    assert torch.equal(x, model(pixels))


class Everywhere(nn.Module):
    """A network in which the pixels are needed again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean((2, 3)) + x.mean((2, 3))


class Undecided(Everywhere):
    """A network whose forward depends on the values of its pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x if x.sum() > 0 else -x).mean((2, 3))


@pytest.mark.parametrize("kind", [Everywhere, Undecided])
def test_a_model_that_cannot_be_divided_is_one_block_with_a_reason(kind: type[Everywhere]) -> None:
    anatomy = anatomy_of(kind().eval(), 32)
    assert not anatomy.known
    assert anatomy.undivided
    assert [type(block.module) for block in anatomy.blocks] == [kind]


TRACED = {
    "repvgg_a0": 22,
    "mobilevit_xxs": 10,
    "pvt_v2_b0": 8,
    "xcit_nano_12_p16_224": 14,
    "edgenext_xx_small": 12,
    "hiera_tiny_224": 12,
    "tiny_vit_5m_224": 12,
    "densenet121": 4,
}
"""Models without a function of their own: how many blocks their papers or their code count."""


@pytest.mark.parametrize("name", TRACED)
def test_a_model_of_any_family_is_divided(name: str) -> None:
    size = 224 if name.startswith("tiny_vit") else 64  # TinyViT's maps are whole windows at its own size alone
    backbone = load(name, "none", size)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.02)
    assert len(backbone.anatomy.blocks) == TRACED[name]
    for model in (backbone, copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        pixels = torch.randn(3, 3, size, size, generator=random)
        with torch.no_grad():
            expected = model.model(pixels)
            middle = model.run({"x": pixels}, 0, 3)
            assert torch.equal(model.run(middle, 3, len(model.segments))["x"], expected)
    assert expected.shape == (3, backbone.num_features)
    names = adapters.attach(backbone, adapters.Bottleneck(rank=4), sites=backbone.sites())
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.05)
    features = backbone(pixels)
    gradients = torch.autograd.grad((features / features.detach().abs().max()).square().mean(), trained)
    assert names
    assert all(bool(gradient.abs().max() > 0) for gradient in gradients)


def test_a_copy_runs_its_own_weights() -> None:
    original = load("resnet18", "none", 32)
    other = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    pixels = torch.ones(1, 3, 32, 32)
    assert float(other(pixels).abs().max()) == 0
    assert float(original(pixels).abs().max()) > 0


def test_pixels_of_another_size_are_refused() -> None:
    backbone = load("resnet18", "none", 64)
    with pytest.raises(BackboneError, match=r"resnet18 .*\[batch, 3, 64, 64\].*\[1, 3, 32, 32\]"):
        backbone(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 11)])
def test_cuts_that_do_not_exist_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=rf"≤ 10, not {start} and {stop}"):
        load("resnet18", "none", 32).run({"x": torch.zeros(1, 3, 32, 32)}, start, stop)
