"""An ensemble computes the mean of its members' logits, wherever it is used, and shares what they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import adapters
from visionadapt.errors import AdapterError, RunError, UsageError
from visionadapt.exporting.served import ServedClassifier
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.planning import choose_cut
from visionadapt.prediction.calibration import Calibration
from visionadapt.run_folder.starting import Start

from ..conftest import SMALL_BACKBONE
from .test_shared import trained

ADAPTERS = ("repadapter(blocks=last:2)", "lora(blocks=last:3)", None)
FAMILIES = (
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
    "efficientnet_lite0",
    "densenet121",
)


def members() -> list[va.Classifier]:
    return [trained("abc", adapter, seed) for seed, adapter in enumerate(ADAPTERS, 1)]


def mean_of(models: list[va.Classifier], pixels: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    return torch.stack([model(pixels) * factor for model, factor in zip(models, factors, strict=True)]).mean(0)


@torch.no_grad()
def test_logits_are_the_mean_of_the_members_logits() -> None:
    models, pixels = members(), torch.randn(3, 3, 64, 64)
    together = va.ensemble(models, (1.0, 0.5, 2.0))
    expected = mean_of(models, pixels, (1.0, 0.5, 2.0))
    torch.testing.assert_close(together(pixels), expected, rtol=1e-5, atol=1e-5)
    together.train()
    together.eval()
    torch.testing.assert_close(together(pixels), expected, rtol=1e-5, atol=1e-5)
    assert together.backbone.num_features == 3 * models[0].backbone.num_features


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_other_families(name: str) -> None:
    models = [
        va.classifier(name, ["a", "b"], adapter, weights="none", image_size=64)
        for adapter in ("lora(blocks=last:2)", None)
    ]
    for seed, model in enumerate(models):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    pixels = torch.randn(2, 3, 64, 64)
    together = va.ensemble([model.eval() for model in models])
    torch.testing.assert_close(together(pixels), mean_of(models, pixels, (1.0, 1.0)), rtol=1e-4, atol=1e-4)


def test_the_frozen_part_is_computed_and_stored_once() -> None:
    models = members()
    together = va.ensemble(models)
    cut = choose_cut(together)
    assert cut == min(choose_cut(model) for model in models) > 0
    assert FrozenPart(together).hash(cut) == FrozenPart(models[0]).hash(cut)  # features in the cache are found

    def count(model: va.Classifier) -> int:
        return sum(tensor.numel() for tensor in (*model.backbone.parameters(), *model.backbone.buffers()))

    plain = count(trained("abc", None))
    assert count(together) == plain + sum(count(model) - plain for model in models)
    together.double().float()
    assert count(together) == plain + sum(count(model) - plain for model in models)


@torch.no_grad()
def test_every_cut_gives_the_same() -> None:
    together, pixels = va.ensemble(members()), torch.randn(2, 3, 64, 64)
    backbone = together.backbone
    expected = together(pixels)
    for cut in range(len(backbone.segments) + 1):
        state = together.prefix(pixels, cut)
        torch.testing.assert_close(together.logits(state, cut), expected, rtol=1e-5, atol=1e-5)
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in state.items()}
        assert backbone.cut_shapes()[cut] == shapes


@torch.no_grad()
def test_merged_and_exported() -> None:
    together, pixels = va.ensemble(members()), torch.randn(2, 3, 64, 64)
    served = ServedClassifier(together, Calibration())
    assert served.merged
    probabilities = served(pixels)[0]
    torch.testing.assert_close(probabilities, together(pixels).softmax(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="ensemble"):
        va.timm_model(together)


def test_heat_maps_add_up() -> None:
    one, pixels = trained("abc", "lora(blocks=last:3)", 1), torch.randn(2, 3, 64, 64)
    alone = va.heat_maps(one, pixels, [0, 1])
    torch.testing.assert_close(va.heat_maps(va.ensemble([one, one]), pixels, [0, 1]), alone, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded(tmp_path: Path) -> None:
    together = va.ensemble(members())
    prepare = va.preprocessing_for(together)
    run = va.save(tmp_path / "run", together, prepare)
    loaded, pixels = va.load(run), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.classifier(pixels), together(pixels))
    again = va.load(va.save(tmp_path / "again", loaded))
    with torch.no_grad():
        assert torch.equal(again.classifier(pixels), together(pixels))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = loaded.features(image)
    assert features.shape[-1] == together.backbone.num_features
    assert json.loads((run / "config.json").read_text())["members"] == [
        "repadapter(blocks=last:2)", "lora(blocks=last:3)", "none",
    ]  # fmt: skip
    with pytest.raises(RunError, match="ensemble"):
        Start.read(run)


def test_what_cannot_be_an_ensemble_is_refused() -> None:
    first = trained("abc", "lora", 1)
    with pytest.raises(UsageError, match="two classifiers"):
        va.ensemble([first])
    with pytest.raises(UsageError, match="classes"):
        va.ensemble([first, trained("abd", "lora", 1)])
    with pytest.raises(UsageError, match="weights_hash"):
        va.ensemble([first, va.classifier(SMALL_BACKBONE, "abc", "lora", weights="none", image_size=64, seed=1)])
    with pytest.raises(UsageError, match="config"):
        va.ensemble([first, va.classifier(SMALL_BACKBONE, "abc", "lora", weights="none", image_size=96)])
    several = trained("abc", "lora", 1)
    several.use_features("blocks")
    with pytest.raises(UsageError, match="blocks"):
        va.ensemble([first, several])
    together = va.ensemble([first, first])
    with pytest.raises(UsageError, match="members"):
        va.ensemble([together, together])
    with pytest.raises(AdapterError, match="members"):
        va.SharedClassifiers(trained("abc", None).backbone).add("all", together)


def test_several_labels_have_the_mean_of_the_thresholds() -> None:
    models = [trained("abc", "lora", seed) for seed in (1, 2)]
    for place, model in enumerate(models):
        model.set_task("multilabel")
        model.thresholds = torch.full((3,), 0.2 + 0.4 * place, dtype=torch.float64)
    together = va.ensemble(models)
    assert together.task == "multilabel"
    assert together.thresholds.tolist() == pytest.approx([0.4] * 3)


def test_members_do_not_change() -> None:
    models = members()
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    together = va.ensemble(models)
    with torch.no_grad():
        for parameter in together.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    for model, tensors in zip(models, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
        assert adapters.names(model.backbone) in {("default",), ()}
