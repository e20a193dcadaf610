"""An ensemble computes the mean of its members' logits, wherever it is used, and shares what they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import adapters
from visionadapt.errors import AdapterError, RunError, UsageError
from visionadapt.export.served import ServedClassifier
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.planning import choose_cut
from visionadapt.prediction.calibration import Calibration
from visionadapt.runs.starting import Start

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


def on_blocks(adapter: str | None, seed: int) -> va.Classifier:
    """A classifier whose head has the features of several blocks."""
    model = trained("abc", adapter, seed)
    model.use_features("blocks")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.randn(model.head.linear.weight.shape, generator=generator) * 0.1)
    model.head.set_statistics(torch.zeros(model.backbone.num_features), torch.ones(model.backbone.num_features))
    return model.eval()


def trained_alike(adapter: str, seed: int) -> va.Classifier:
    return trained("abc", adapter, seed)


def members() -> list[va.Classifier]:
    return [trained("abc", adapter, seed) for seed, adapter in enumerate(ADAPTERS, 1)]


def mixed() -> list[va.Classifier]:
    """Members with the last features and with those of several blocks, of which one is no adapter's."""
    return [members()[0], on_blocks("lora(blocks=last:3)", 2), on_blocks(None, 3)]


def mean_of(models: list[va.Classifier], pixels: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    return torch.stack([model(pixels) * factor for model, factor in zip(models, factors, strict=True)]).mean(0)


@pytest.mark.parametrize("made", [members, mixed])
@torch.no_grad()
def test_logits_are_the_mean_of_the_members_logits(made: Callable[[], list[va.Classifier]]) -> None:
    models, pixels = made(), torch.randn(3, 3, 64, 64)
    together = va.ensemble(models, (1.0, 0.5, 2.0))
    expected = mean_of(models, pixels, (1.0, 0.5, 2.0))
    torch.testing.assert_close(together(pixels), expected, rtol=1e-5, atol=1e-5)
    together.train()
    together.eval()
    torch.testing.assert_close(together(pixels), expected, rtol=1e-5, atol=1e-5)
    assert together.backbone.num_features == sum(model.backbone.num_features for model in models)
    assert together.backbone.own_features == 3 * models[0].backbone.own_features


@pytest.mark.slow
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


@pytest.mark.parametrize("made", [members, mixed, lambda: [on_blocks(None, 1), trained("abc", None, 2)]])
@torch.no_grad()
def test_every_cut_gives_the_same(made: Callable[[], list[va.Classifier]]) -> None:
    together, pixels = va.ensemble(made()), torch.randn(2, 3, 64, 64)
    backbone = together.backbone
    expected = together(pixels)
    for cut in range(len(backbone.segments) + 1):
        state = together.prefix(pixels, cut)
        torch.testing.assert_close(together.logits(state, cut), expected, rtol=1e-5, atol=1e-5)
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in state.items()}
        assert backbone.cut_shapes()[cut] == shapes


@pytest.mark.parametrize("made", [members, mixed])
@torch.no_grad()
def test_merged_and_exported(made: Callable[[], list[va.Classifier]]) -> None:
    together, pixels = va.ensemble(made()), torch.randn(2, 3, 64, 64)
    served = ServedClassifier(together, Calibration())
    assert served.merged
    probabilities = served(pixels)[0]
    torch.testing.assert_close(probabilities, together(pixels).softmax(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="ensemble"):
        va.timm_model(together)


@pytest.mark.parametrize("made", [trained_alike, on_blocks])
def test_heat_maps_add_up(made: Callable[[str, int], va.Classifier]) -> None:
    one, pixels = made("lora(blocks=last:3)", 1), torch.randn(2, 3, 64, 64)
    alone = va.heat_maps(one, pixels, [0, 1])
    torch.testing.assert_close(va.heat_maps(va.ensemble([one, one]), pixels, [0, 1]), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("made", [members, mixed])
def test_saved_and_loaded(tmp_path: Path, made: Callable[[], list[va.Classifier]]) -> None:
    together = va.ensemble(made())
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
    assert features.shape[-1] == together.backbone.num_features == together.head.linear.in_features
    stored = json.loads((run / "config.json").read_text())
    assert stored["members"] == ["repadapter(blocks=last:2)", "lora(blocks=last:3)", "none"]
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


@pytest.mark.slow
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
