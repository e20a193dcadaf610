"""Every engine gives the backbone's own features, and a picture's bits depend on no other picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from visionadapt import engines
from visionadapt.engines import ENGINES, Prefix, agrees, candidates, engine, relative_error
from visionadapt.model import Classifier, classifier

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
        assert relative_error("folded", model, prefix, pixels) < 1e-5


@pytest.mark.parametrize("name", ["eager", "folded"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.inference_mode()
def test_a_picture_s_bits_depend_on_no_other(name: str, precision: str) -> None:
    model = small("tf_efficientnet_lite0")
    run, pixels = engine(name, model, prefix_of(model, precision)), pixels_for(model)
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
    error = relative_error(name, model, prefix, pixels)
    assert error < 1e-5
    assert agrees(error, model, prefix, pixels)
    assert engine(name, model, prefix)(pixels)["x"].shape == model.prefix(pixels, 2)["x"].shape


@torch.inference_mode()
def test_the_number_format_s_own_error_is_allowed_and_twice_as_much_is_not() -> None:
    model = small("resnet10t")
    prefix, pixels = prefix_of(model, "bfloat16"), pixels_for(model)
    own = relative_error("eager", model, prefix, pixels)
    assert 1e-3 < own < 0.1
    assert agrees(1.9 * own, model, prefix, pixels)
    assert not agrees(2.1 * own, model, prefix, pixels)
    assert not agrees(2e-4, model, prefix_of(model, "float32"), pixels)


def test_an_engine_that_cannot_be_built_is_named_and_the_backbone_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Classifier, prefix: Prefix) -> engines.Engine:
        raise RuntimeError("no compiler found\nand a long story")

    monkeypatch.setitem(ENGINES, "compiled", broken)  # type: ignore[arg-type]
    model = small("resnet10t")
    prefix, pixels = prefix_of(model), pixels_for(model)
    with pytest.warns(
        UserWarning, match=r"^the engine 'compiled' cannot be built here \(RuntimeError: no compiler found\)"
    ):
        run = engine("compiled", model, prefix)
    with torch.inference_mode():
        assert torch.equal(run(pixels)["x"], model.prefix(pixels, prefix.cut)["x"])


def test_long_jobs_alone_are_worth_building_for() -> None:
    convolutional, tokens = small("resnet10t"), classifier("test_vit", ("a", "b"), weights="none")
    assert candidates(convolutional, prefix_of(convolutional)) == ["folded", "eager"]
    assert candidates(tokens, prefix_of(tokens)) == ["eager"]
    assert candidates(tokens, prefix_of(tokens), seconds_at_hand=1e4) == ["eager", "onnx", "compiled"]
