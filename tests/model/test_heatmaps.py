"""Heat maps point at what decides, and come from the trained weights.

The small models are trained here, in seconds, on noise in which one patch decides the class: where it lies is known.
"""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

import visionadapt as va
from visionadapt import adapters, sources
from visionadapt.backbones import Backbone, load
from visionadapt.backbones.data_config import DataConfig
from visionadapt.backbones.families import anatomy_of
from visionadapt.errors import BackboneError
from visionadapt.model.classifier import Classifier
from visionadapt.model.heatmaps import heat_maps

SAMPLES = Path(__file__).parents[2] / "sample_images" / "train"
SIDE, PATCH = 32, 8
CLASSES = ("red", "green", "blue", "none")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "CNN": (
        "resnet26",
        {"layers": (1, 1, 1, 1), "channels": (16, 32, 32, 32), "block": BasicBlock, "output_stride": 8},
    ),
    "ViT": ("vit_tiny_patch16_224", {"img_size": SIDE, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": SIDE, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)},
    ),
}

STEPS = {"CNN": 100, "ViT": 100, "Swin": 150}
"""After so many steps they have learnt it, with some to spare."""


def untrained(kind: str, adapter: adapters.AdapterSettings | None = None) -> Classifier:
    """A small classifier of random weights for pictures [3, 32, 32]."""
    name, arguments = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, **arguments)
    config = DataConfig(SIDE, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    return Classifier(
        Backbone(name, model, anatomy_of(model, config.image_size), config, "", model.num_features), CLASSES, adapter
    )


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise [N, 3, 32, 32] with a coloured patch of 8 × 8 or without; the class [N]; the patch, bool [N, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.4 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    classes = torch.randint(4, (count,), generator=generator)
    corners = torch.randint(SIDE - PATCH + 1, (count, 2), generator=generator)
    inside = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for row, (colour, (top, left)) in enumerate(zip(classes.tolist(), corners.tolist(), strict=True)):
        if colour < 3:
            pixels[row, colour, top : top + PATCH, left : left + PATCH] += 1.5
            inside[row, top : top + PATCH, left : left + PATCH] = True
    return pixels, classes, inside


def coloured(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those of `pictures` that have a patch."""
    pixels, classes, inside = pictures(count, seed)
    return pixels[classes < 3], classes[classes < 3], inside[classes < 3]


@cache
def trained(kind: str) -> Classifier:
    """A small classifier that errs on none of 64 pictures that it has not seen."""
    model = untrained(kind, adapters.FullFineTuning())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for step in range(STEPS[kind]):
        pixels, classes, _ = pictures(32, step)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(pixels), classes).backward()
        optimizer.step()
    pixels, classes, _ = pictures(64, 1_000)
    with torch.no_grad():
        assert (model.eval()(pixels).argmax(1) == classes).all()
    return model


def randomised(model: Classifier, blocks: int, seed: int) -> Classifier:
    """A copy whose head, finish and last blocks are drawn anew, on the scale that they had."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    last = other.backbone.segments[-1 - blocks :]
    modules = [other.head, *(part for segment in last for part in segment.parts if isinstance(part, nn.Module))]
    with torch.no_grad():
        for parameter in (parameter for module in modules for parameter in module.parameters()):
            scale = 1 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.5
            centre = 1.0 if parameter.ndim == 1 and bool((parameter > 0).all()) else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return other


def correlation(first: Tensor, second: Tensor) -> float:
    """Mean over the pictures of Pearson's r between maps [N, h, w]; a map without contrast correlates with nothing."""
    rows = [torch.stack([a.flatten(), b.flatten()]) for a, b in zip(first, second, strict=True)]
    return float(torch.stack([torch.corrcoef(pair)[0, 1].nan_to_num(0) for pair in rows]).mean())


def test_features_of_several_blocks_are_explained() -> None:
    model = va.classifier("resnet18", ["a", "b"], weights="none", image_size=64)
    model.use_features("blocks")
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = heat_maps(model, pixels, [0, 1])
    assert maps.shape == (2, 2, 2)
    assert maps.max() == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_the_strongest_place_is_the_patch_that_decides(kind: str) -> None:
    pixels, classes, inside = coloured(128, 2_000)
    maps = heat_maps(trained(kind), pixels, classes.tolist())
    assert maps.dtype == torch.float32
    assert maps.amin() >= 0 and bool((maps.amax((1, 2)) == 1).all())
    places = F.interpolate(maps[:, None], (SIDE, SIDE), mode="bilinear").flatten(1).argmax(1, keepdim=True)
    near = F.max_pool2d(inside[:, None].float(), 9, stride=1, padding=4).flatten(1)
    assert near.mean() < 0.25, "so often a place drawn blindly would hit"
    assert near.gather(1, places).mean() > 0.8


@cache
def mapped(kind: str) -> tuple[Tensor, list[int], Tensor]:
    """Pictures with a patch, their classes, and their maps."""
    pixels, classes, _ = coloured(64, 3_000)
    return pixels, classes.tolist(), heat_maps(trained(kind), pixels, classes.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["ViT", "Swin"])
def test_random_last_blocks_give_another_map_on_tokens(kind: str, seed: int) -> None:
    """The model-randomisation check of Adebayo et al., "Sanity Checks for Saliency Maps", 2018."""
    pixels, classes, real = mapped(kind)
    assert correlation(real, real) > 0.999
    assert correlation(real, heat_maps(randomised(trained(kind), 2, seed), pixels, classes)) < 0.5


@cache
def sample_classifier() -> tuple[Classifier, Tensor, list[int], Tensor]:
    """The default backbone with ImageNet weights and a head for the sample pictures; some of these, classes, maps."""
    train, val = va.split(sources.FolderSource(SAMPLES), val=0.2)
    model = va.classifier("tf_efficientnet_lite0", classes=train.classes)
    prepare = va.preprocessing_for(model)
    for _ in va.fit(model, train, val, prepare, epochs=3):
        pass
    pixels = torch.stack([prepare.host(val.read(row)) for row in range(0, len(val), 2)])
    pixels, classes = prepare.device(pixels), [val.label(row) for row in range(0, len(val), 2)]
    return model, pixels, classes, heat_maps(model, pixels, classes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_last_blocks_give_another_map_on_a_pretrained_cnn(seed: int) -> None:
    model, pixels, classes, real = sample_classifier()
    assert correlation(real, heat_maps(randomised(model, 2, seed), pixels, classes)) < 0.5


def test_on_pooled_maps_it_is_the_class_activation_map() -> None:
    """Zhou et al., "Learning Deep Features", 2016: behind a global mean, the head's own weights weigh the maps."""
    model = untrained("CNN")
    nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(1))
    pixels, classes, _ = pictures(8, 0)
    with torch.no_grad():
        activations = model.prefix(pixels, len(model.backbone.segments) - 1)["x"]
        weights = model.head.linear.weight[classes] - model.head.linear.weight.mean(0)
        expected = torch.einsum("nk,nkhw->nhw", weights, activations).relu()
    expected = expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(heat_maps(model, pixels, classes.tolist()), expected, rtol=1e-4, atol=1e-5)


def test_prompts_are_no_places_and_nothing_changes() -> None:
    model = untrained("ViT", adapters.VPT(tokens=5, deep=False))
    nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.train().modules()]
    pixels, classes, _ = pictures(4, 0)
    assert heat_maps(model, pixels, classes.tolist()).shape == (4, 8, 8)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert modes == [module.training for module in model.modules()]


@pytest.mark.slow
def test_an_unknown_family_is_told() -> None:
    model = Classifier(load("tnt_s_legacy_patch16_224", "none"), CLASSES, None)
    with pytest.raises(BackboneError, match="no heat maps of tnt_s_legacy_patch16_224"):
        heat_maps(model, torch.zeros(1, 3, 224, 224), [0])
