"""Every engine gives the backbone's own features, and a picture's bits depend on no other picture."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from visionadapt.adapters import LoRA, attach
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, UsageError
from visionadapt.frozen import engines
from visionadapt.frozen.engines import ENGINES, Prefix, candidates, check_engine
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import choose_engine, make_plan
from visionadapt.frozen.timing import Measurements, measure_engine
from visionadapt.model.classifier import Classifier, classifier

pytestmark = pytest.mark.slow

BATCH = 8


def small(name: str) -> Classifier:
    return classifier(name, ("a", "b"), weights="none", image_size=64).eval()


def pixels_for(model: Classifier) -> Tensor:
    size = model.backbone.config.image_size
    coarse = torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return smooth.contiguous(memory_format=torch.channels_last)


def prefix_of(model: Classifier, precision: str = "float32", cut: int | None = None) -> Prefix:
    return Prefix(
        len(model.backbone.segments) if cut is None else cut, precision, "cpu", BATCH, torch.get_num_threads()
    )


@pytest.mark.parametrize("cut", [1, 4, None], ids=["stem", "block 2", "features"])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_lite0", "regnetx_002"])
def test_folded_features_are_the_backbone_s_own(name: str, cut: int | None) -> None:
    model = small(name)
    prefix, pixels = prefix_of(model, cut=cut), pixels_for(model)
    with torch.inference_mode():
        assert FrozenPart(model).relative_error("folded", prefix, pixels) < 1e-5


@pytest.mark.parametrize("name", ["eager", "folded"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_a_picture_s_bits_depend_on_no_other(name: str, precision: str) -> None:
    model = small("tf_efficientnet_lite0")
    run, pixels = FrozenPart(model).engine(name, prefix_of(model, precision)), pixels_for(model)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    alone = pixels[2:3].expand(BATCH, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    together = run(pixels)["x"]
    assert torch.equal(run(pixels[order].contiguous(memory_format=torch.channels_last))["x"], together[order])
    assert torch.equal(run(alone)["x"][0], together[2])


@pytest.mark.parametrize("name", ["folded", "onnx", "compiled"])
@torch.inference_mode()
def test_every_engine_agrees_with_eager_float32(name: str) -> None:
    model = small("mobilenetv3_small_050")
    prefix, pixels = prefix_of(model, cut=2), pixels_for(model)
    frozen = FrozenPart(model)
    error = frozen.relative_error(name, prefix, pixels)
    assert error < 1e-5
    assert frozen.agrees(error, prefix, pixels)
    assert frozen.engine(name, prefix)(pixels)["x"].shape == model.prefix(pixels, 2)["x"].shape


@torch.inference_mode()
def test_the_number_format_s_own_error_is_allowed_and_twice_as_much_is_not() -> None:
    model = small("resnet10t")
    prefix, pixels = prefix_of(model, "bfloat16"), pixels_for(model)
    frozen = FrozenPart(model)
    own = frozen.relative_error("eager", prefix, pixels)
    assert 1e-3 < own < 0.1
    assert frozen.agrees(1.9 * own, prefix, pixels)
    assert not frozen.agrees(2.1 * own, prefix, pixels)
    assert not frozen.agrees(2e-4, prefix_of(model, "float32"), pixels)


def broken(model: Classifier, prefix: Prefix) -> engines.Engine:
    raise RuntimeError("no compiler found\nand a long story")


def test_an_engine_that_cannot_be_built_is_named_and_the_backbone_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "compiled", broken)
    model = small("resnet10t")
    prefix, pixels = prefix_of(model), pixels_for(model)
    with pytest.warns(
        UserWarning, match=r"^the engine 'compiled' cannot be built here \(RuntimeError: no compiler found\)"
    ):
        run = FrozenPart(model).engine("compiled", prefix)
    with torch.inference_mode():
        assert torch.equal(run(pixels)["x"], model.prefix(pixels, prefix.cut)["x"])


def test_long_jobs_alone_are_worth_building_for() -> None:
    convolutional, tokens = small("resnet10t"), classifier("test_vit", ("a", "b"), weights="none")
    assert candidates(convolutional, prefix_of(convolutional)) == ["folded", "eager"]
    assert candidates(tokens, prefix_of(tokens)) == ["eager"]
    assert candidates(tokens, prefix_of(tokens), frozen_seconds=1e4) == ["eager", "onnx", "compiled"]


@pytest.mark.filterwarnings("ignore:the engine 'compiled' cannot be built here")
def test_what_an_engine_did_not_compute_is_never_kept_under_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(ENGINES, "compiled", broken)
    model = small("resnet10t")
    frozen, prefix = FrozenPart(model), prefix_of(model)
    assert not measure_engine("compiled", frozen, prefix)["agrees"]
    assert choose_engine(frozen, prefix, "compiled", 10, Measurements(tmp_path)) == "eager"
    with pytest.raises(RunError, match=r"'compiled' cannot be built here \(RuntimeError: no compiler found\)"):
        frozen.engine("compiled", prefix, exact=True)


def test_a_wish_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--engine onnx computes on the CPU, not on cuda"):
        check_engine("onnx", "cuda")
    monkeypatch.setattr("visionadapt.frozen.engines._has_onnx", lambda: False)
    model = small("resnet10t")
    with pytest.raises(UsageError, match=r"pip install 'visionadapt\[onnx\]'"):
        choose_engine(FrozenPart(model), prefix_of(model), "onnx", 10, Measurements(tmp_path))
    assert choose_engine(FrozenPart(model), prefix_of(model), "auto", 10, Measurements(tmp_path)) == "eager"


def test_onnx_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("resnet10t")
    plan = make_plan(FrozenPart(model), TrainingSettings(device="cpu", engine="onnx"))
    monkeypatch.setattr("visionadapt.frozen.plan.choose_device", torch.device)
    assert isinstance(plan, Plan)
    assert [plan.on(device).engine for device in ("cpu", "cuda")] == ["onnx", "eager"]


@pytest.mark.filterwarnings("ignore:the engine 'compiled' cannot be built here")
@pytest.mark.parametrize("name", ["eager", "folded", "compiled"])
def test_a_model_that_is_gone_takes_its_engines_along(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(ENGINES, "compiled", broken)
    model = small("resnet10t")
    with torch.inference_mode():
        frozen = FrozenPart(model)
        frozen.engine(name, prefix_of(model))(pixels_for(model))
    gone = weakref.ref(model)
    del model, frozen
    gc.collect()
    assert gone() is None


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Classifier]:
    """Models that the folded engine is built for."""
    built: list[Classifier] = []
    folded = ENGINES["folded"]

    def noted(model: Classifier, prefix: Prefix) -> engines.Engine:
        built.append(model)
        return folded(model, prefix)

    monkeypatch.setitem(ENGINES, "folded", noted)
    return built


def test_the_next_model_with_the_same_frozen_part_shares_its_engine(builds: list[Classifier]) -> None:
    first = classifier("resnet10t", ("a", "b"), "bottleneck(blocks=last:1)", "none", 64).eval()
    prefix, pixels = prefix_of(first, cut=3), pixels_for(first)
    found = FrozenPart(first).engine("folded", prefix)(pixels)["x"]
    del first
    second = classifier("resnet10t", ("a", "b", "c"), "lora(rank=2, blocks=last:1)", "none", 64).eval()
    assert torch.equal(FrozenPart(second).engine("folded", prefix)(pixels)["x"], found)
    assert len(builds) == 1


def test_only_the_latest_engine_is_shared_and_no_model(builds: list[Classifier]) -> None:
    for cut in (1, 2, 2, 1):
        model = small("resnet10t")
        FrozenPart(model).engine("folded", prefix_of(model, cut=cut))
    assert len(builds) == 3, "the second cut took the place of the first"
    gone = weakref.ref(model)
    del model
    builds.clear()
    gc.collect()
    assert gone() is None


def test_other_weights_modules_or_adapters_before_the_cut_share_nothing(builds: list[Classifier]) -> None:
    plain = small("resnet10t")
    prefix, pixels = prefix_of(plain, cut=3), pixels_for(plain)
    weights = classifier("resnet10t", ("a", "b"), None, "none", 64, seed=1).eval()
    hooked, adapted, other = small("resnet10t"), small("resnet10t"), small("resnet10t")
    other.backbone.model.set_submodule("act1", torch.nn.Tanh())
    hooked.backbone.model.get_submodule("conv1").register_forward_hook(lambda host, given, y: y * 2)
    attach(adapted.backbone, LoRA(rank=2, blocks="0"), sites=adapted.backbone.sites())
    for layer in adapted.backbone.parameters():
        layer.requires_grad_(False)
    models = [plain, weights, other, hooked, adapted]
    with torch.inference_mode():
        for model in models:
            found = FrozenPart(model).engine("folded", prefix)(pixels)["x"]
            torch.testing.assert_close(found, model.prefix(pixels, 3)["x"], rtol=1e-3, atol=1e-4)
    assert builds == models


def test_changed_weights_are_computed_with() -> None:
    model = small("resnet10t")
    cut = 2
    prefix, pixels = prefix_of(model, cut=cut), pixels_for(model)
    frozen = FrozenPart(model)
    assert frozen.can_build("folded", prefix)
    before = frozen.hash(cut)
    first, *_, last = (parameter for parameter in model.backbone.parameters() if parameter.ndim == 4)
    with torch.no_grad():
        last.mul_(1.5)
    assert frozen.hash(cut) == before
    with torch.no_grad():
        first.mul_(1.5)
    assert frozen.hash(cut) not in {before, ""}
    assert frozen.hash(0) == ""
    with torch.inference_mode():
        assert frozen.relative_error("folded", prefix, pixels) < 1e-5
