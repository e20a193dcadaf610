"""What is saved comes back as it was: plan, classes, preprocessing, calibration, trained tensors and golden images."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import visionadapt as va
from visionadapt import adapters
from visionadapt.errors import AdapterError, RunError, UsageError
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.planning import plan_for
from visionadapt.images import DecodeAdapter, NormalizeAdapter, Preprocessing, ResizeAdapter, compose
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import FeatureDistance
from visionadapt.tasks import TaskName

from ..conftest import SMALL_BACKBONE, tinted

FILES = (
    "plan.json",
    "classes.json",
    "preprocess.json",
    "config.json",
    "calibration.json",
    "calibration.safetensors",
    "golden.safetensors",
    "model.safetensors",
)
ADAPTERS = ("none", "bottleneck(rank=2, blocks=last:1)", "lora(rank=1, blocks=last:1)")


@cache
def backbone_of(adapter: str, task: TaskName, count: int) -> va.Classifier:
    """A classifier whose trained tensors and names each example replaces: loading one takes longer than the rest."""
    return va.classifier(SMALL_BACKBONE, [str(n) for n in range(count)], adapter, "none", 32, 7, task)


@cache
def files() -> tuple[tuple[str, bytes], ...]:
    found = []
    for number in range(3):
        content = io.BytesIO()
        tinted((40, 30), number, number).save(content, "PNG")
        found.append((f"{number}/ä.png", content.getvalue()))
    return (*found, ("broken.png", b"no image"))


@st.composite
def classifiers(draw: st.DrawFn) -> va.Classifier:
    task: TaskName = draw(st.sampled_from(("single", "multilabel")))
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=4, unique=True))
    model = backbone_of(draw(st.sampled_from(ADAPTERS)), task, len(names))
    model.classes, model.plan = tuple(names), None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.head.feature_std.copy_(torch.rand(model.head.feature_std.shape, generator=generator) + 0.5)
    if task == "multilabel":
        model.thresholds = torch.rand(len(names), dtype=torch.float64, generator=generator)
    return model


@st.composite
def preprocessings(draw: st.DrawFn) -> Preprocessing:
    statistics = st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3).map(tuple)
    return compose(
        DecodeAdapter(scaled=draw(st.booleans())),
        ResizeAdapter(32, policy=draw(st.sampled_from(("crop", "squash", "letterbox")))),
        NormalizeAdapter(mean=draw(statistics), std=draw(statistics)),
    )


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration | None:
    if draw(st.booleans()):
        return None
    features, rows = backbone_of("none", "single", 2).backbone.num_features, draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shapes = ((rows, features), (rows, features), (rows,), (), ())
    distance = FeatureDistance(*(torch.rand(shape, generator=generator) + 0.1 for shape in shapes))
    return Calibration(
        temperature=draw(st.floats(1e-3, 1e3)),
        threshold=draw(st.floats(0, 2)),
        target_precision=draw(st.none() | st.floats(0.01, 0.99)),
        images=draw(st.integers(1, 10**6)),
        answered=draw(st.integers(0, 10**6)),
        right=draw(st.integers(0, 10**6)),
        distance=draw(st.sampled_from((None, distance))),
    )


@pytest.mark.slow
@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(classifiers(), preprocessings(), calibrations(), st.booleans())
def test_a_predictor_that_is_saved_and_loaded_again_and_again_stays_the_same(
    model: va.Classifier, prepare: Preprocessing, calibration: Calibration | None, golden: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one", Path(folder) / "two"
        va.save(one, model, prepare, golden=files() if golden else (), calibration=calibration)
        loaded = va.load(one)
        va.save(two, loaded)
        again = va.load(two)
        for name in FILES:
            assert (one / name).exists() == (two / name).exists(), name
            assert not (one / name).exists() or (one / name).read_bytes() == (two / name).read_bytes(), name
    for predictor in (loaded, again):
        assert predictor.classes == model.classes
        assert predictor.prepare == prepare
        assert predictor.plan.to_json() == model.plan == predictor.classifier.plan
        assert (predictor.classifier.weights, predictor.classifier.seed) == ("none", 7)
        own = (calibration or Calibration()).of(model.task, model.thresholds)
        assert dataclasses.replace(predictor.calibration, distance=None) == dataclasses.replace(own, distance=None)
        assert (predictor.calibration.distance is None) == (own.distance is None)
        if own.distance is not None and predictor.calibration.distance is not None:
            pairs = zip(own.distance.tensors().values(), predictor.calibration.distance.tensors().values(), strict=True)
            assert all(torch.equal(mine, saved) for mine, saved in pairs)
        assert torch.equal(predictor.classifier.thresholds, model.thresholds)
        assert all(
            torch.equal(mine, predictor.classifier.state_dict()[name]) for name, mine in model.state_dict().items()
        )
        assert [(image.name, image.data) for image in predictor.golden] == (list(files()[:3]) if golden else [])
        assert predictor.golden_difference() == 0


@pytest.fixture
def model() -> va.Classifier:
    return va.classifier(SMALL_BACKBONE, ("a", "b"), None, "none", 32)


def test_a_run_folder_is_replaced_by_what_was_loaded_from_it(model: va.Classifier, tmp_path: Path) -> None:
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model), golden=files(), calibration=Calibration(0.5))
    before = {name: (run / name).read_bytes() for name in FILES if (run / name).exists()}
    with pytest.raises(RunError, match="run is there already"):
        va.save(run, va.load(run))
    va.save(run, va.load(run), overwrite=True)
    assert {name: (run / name).read_bytes() for name in FILES if (run / name).exists()} == before


def test_a_new_calibration_and_new_golden_images_take_the_place_of_the_old_ones(
    model: va.Classifier, tmp_path: Path
) -> None:
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model), golden=files(), calibration=Calibration(0.5))
    changes = {"calibration": Calibration(0.25), "golden": files()[1:2]}
    found = va.load(va.save(tmp_path / "other", va.load(run), **changes))
    assert found.calibration.temperature == 0.25
    assert [image.name for image in found.golden] == ["1/ä.png"]


def test_the_plan_of_fit_is_saved_whatever_device_it_is_loaded_on(model: va.Classifier, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan_for(FrozenPart(model)), precision="float16", batch_size=5)
    model.plan = plan.to_json()
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model))
    loaded = va.load(run, "cpu")
    assert (loaded.plan.precision, loaded.plan.batch_size) == ("float32", 5)
    assert va.load(va.save(tmp_path / "other", loaded)).classifier.plan == plan.to_json()


def test_a_predictor_has_its_own_preprocessing(model: va.Classifier, tmp_path: Path) -> None:
    prepare = va.preprocessing_for(model)
    predictor = va.load(va.save(tmp_path / "run", model, prepare))
    with pytest.raises(UsageError):
        va.save(tmp_path / "two", predictor, prepare)
    with pytest.raises(UsageError):
        va.save(tmp_path / "two", model)
    assert not (tmp_path / "two").exists()


def _off(backbone: nn.Module) -> None:
    adapters.switch(backbone)


def _detached(backbone: nn.Module) -> None:
    adapters.detach(backbone)


def _replaced(backbone: nn.Module) -> None:
    adapters.detach(backbone)
    adapters.attach(backbone, adapters.LoRA(rank=1, alpha=2, blocks="last:1"), sites=backbone.sites())


def _joined(backbone: nn.Module) -> None:
    adapters.attach(backbone, adapters.LoRA(rank=1, blocks="last:1"), sites=backbone.sites(), name="other")


@pytest.mark.parametrize("change", [_off, _detached, _replaced, _joined])
def test_a_classifier_whose_adapters_were_changed_by_hand_is_not_saved(
    change: Callable[[nn.Module], None], tmp_path: Path
) -> None:
    model = va.classifier(SMALL_BACKBONE, ("a", "b"), "lora(rank=1, blocks=last:1)", "none", 32)
    prepare = va.preprocessing_for(model)
    change(model.backbone)
    with pytest.raises(AdapterError, match="adapters of this classifier"):
        va.save(tmp_path / "run", model, prepare)
    assert not (tmp_path / "run").exists()


def test_a_classifier_is_saved_after_its_adapters_are_switched_on_again(tmp_path: Path) -> None:
    model = va.classifier(SMALL_BACKBONE, ("a", "b"), "lora(rank=1, blocks=last:1)", "none", 32)
    adapters.switch(model.backbone)
    adapters.switch(model.backbone, "default")
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model))
    loaded = va.load(run).classifier.state_dict()
    assert all(torch.equal(mine, loaded[name]) for name, mine in model.state_dict().items())
