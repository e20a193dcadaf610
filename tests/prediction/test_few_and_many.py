"""A single image costs a forward of one image; many are computed by one engine of the whole network; all agree."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import visionadapt as va
from visionadapt import adapters
from visionadapt.frozen.engines import ENGINES, Engine, Prefix
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import make_plan
from visionadapt.images import DecodeAdapter, NormalizeAdapter, ResizeAdapter, compose
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.predictor import MANY
from visionadapt.sources.opening import manifest_of

from ..conftest import SMALL_BACKBONE, tinted

pytestmark = pytest.mark.slow


def predictor_with(adapter: str | None, *steps: Any, backbone: str = SMALL_BACKBONE) -> va.Predictor:
    """A classifier with adapters that act and a random head."""
    model = va.classifier(backbone, ("blood", "grass", "sky"), adapter, "none", 32)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.linear.weight)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    frozen = FrozenPart(model.eval())
    plan = make_plan(frozen, va.TrainingSettings(device="cpu", precision="float32"))
    prepare = compose(DecodeAdapter(), ResizeAdapter(32), *steps, NormalizeAdapter(mean=0.5, std=0.5))
    return va.Predictor(Pipeline(frozen, prepare, plan))


def images_of(count: int) -> list[Image.Image]:
    return [tinted((40, 40), number, number) for number in range(count)]


def plain_logits(predictor: va.Predictor, images: list[Image.Image]) -> Tensor:
    pixels = predictor.prepare.device(torch.stack([predictor.prepare.host(image) for image in images]))
    with torch.inference_mode():
        return predictor.classifier(pixels)


def pixels_of(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> va.Manifest:
    """Rows enough for the engine of many."""
    folder = tmp_path_factory.mktemp("many")
    for number, image in enumerate(images_of(MANY + 20)):
        image.save(folder / f"{number:03}.bmp")
    return manifest_of([(str(path), "blood") for path in sorted(folder.iterdir())])


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (2, [2]), (5, [8]), (32, [32]), (40, [32, 8])],
)
def test_a_few_images_are_hardly_padded(count: int, sizes: list[int]) -> None:
    predictor, found = predictor_with("bottleneck(rank=2, blocks=last:1)"), []
    stem = next(module for module in predictor.classifier.modules() if isinstance(module, torch.nn.Conv2d))
    stem.register_forward_pre_hook(lambda host, given: found.append(len(given[0])))
    images = images_of(count)
    predictor.predict(images[0] if count == 1 else images)
    assert found == sizes
    found.clear()
    predictor.logits(pixels_of(1))
    assert found == [32], "what is compared with the training is padded as in the training"


def test_an_image_alone_and_in_company_agree() -> None:
    predictor, images = predictor_with("bottleneck(rank=2, blocks=last:1)"), images_of(40)
    together = predictor.predict_proba(images)
    alone = np.concatenate([predictor.predict_proba(image) for image in images])
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("adapter", [None, "bottleneck(rank=2)", "lora(rank=2, blocks=last:2)", "ssf"])
def test_many_images_go_through_one_graph_that_agrees(adapter: str | None) -> None:
    predictor = predictor_with(adapter)
    many, pixels = predictor.pipeline.for_many(), pixels_of(40)
    assert (many.plan.engine, many.plan.cut) == ("folded", predictor.plan.segments)
    features, logits = many.outputs(pixels)
    with torch.inference_mode():
        torch.testing.assert_close(logits, predictor.classifier(predictor.prepare.device(pixels)), rtol=1e-4, atol=1e-4)
    expected = predictor.pipeline.outputs(pixels)
    torch.testing.assert_close(features, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(many.outputs(pixels[7:8])[1], logits[7:8], rtol=0, atol=0)


def test_the_graph_follows_what_is_trained_and_which_adapters_act() -> None:
    predictor, pixels = predictor_with("bottleneck(rank=2)"), pixels_of(8)
    model = predictor.classifier

    def difference() -> float:
        with torch.inference_mode():
            expected = model(predictor.prepare.device(pixels))
        return float((predictor.pipeline.for_many().outputs(pixels)[1] - expected).abs().max())

    first = predictor.pipeline.for_many().outputs(pixels)[1]
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    assert difference() < 1e-4
    assert (predictor.pipeline.for_many().outputs(pixels)[1] - first).abs().max() > 1e-3
    adapters.switch(model.backbone)
    assert difference() < 1e-4
    adapters.switch(model.backbone, *adapters.names(model.backbone))
    assert difference() < 1e-4


def test_a_network_without_batch_norms_computes_as_planned() -> None:
    predictor = predictor_with("lora(rank=2)", backbone="test_vit")
    assert predictor.pipeline.for_many() is predictor.pipeline


def test_a_part_trained_in_16_bits_predicts_the_same_alone_in_company_and_among_many(rows: va.Manifest) -> None:
    exact = predictor_with("bottleneck(rank=2)")
    plan = replace(exact.plan, precision="bfloat16")
    predictor = va.Predictor(replace(exact.pipeline, plan=plan))
    images = [Image.open(io.BytesIO(rows.read(row))) for row in range(len(rows))]
    expected = torch.softmax(plain_logits(exact, images), 1).numpy()
    state = predictor.pipeline.prefix(pixels_of(32))
    own, other = (each.pipeline.suffix(state) for each in (exact, predictor))
    assert (other - own).norm() > 1e-3 * own.norm(), "a training step is in 16 bits"
    assert predictor.predict_proba(images[0]) == pytest.approx(expected[:1], abs=1e-5)
    for given in (rows, rows.select(range(40))):
        found = [prediction.probabilities for prediction, _ in predictor.stream(given)]
        assert np.array(found) == pytest.approx(expected[: len(found)], abs=1e-5)
        assert predictor.predict_proba(given) == pytest.approx(expected[: len(found)], abs=1e-5)


def test_an_engine_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = ENGINES["folded"]

    def wrong(model: Classifier, prefix: Prefix) -> Engine:
        run = folded(model, prefix)
        return lambda pixels: {name: tensor * 1.01 for name, tensor in run(pixels).items()}

    monkeypatch.setitem(ENGINES, "folded", wrong)
    predictor = predictor_with("bottleneck(rank=2)")
    with pytest.warns(UserWarning, match="'folded' is not used"):
        assert predictor.pipeline.for_many() is predictor.pipeline


def test_a_row_s_bits_depend_on_no_other_row(rows: va.Manifest) -> None:
    predictor = predictor_with("bottleneck(rank=2, blocks=last:2)")
    found = [prediction.probabilities for prediction, _ in predictor.stream(rows)]
    later = [row.probabilities for batch in predictor.batches(rows, start=13) for row, _ in batch]
    assert later == found[13:]
    few = [prediction.probabilities for prediction, _ in predictor.stream(rows.select(range(3)))]
    assert np.array(few) == pytest.approx(np.array(found[:3]), abs=1e-5)


def test_a_list_of_files_takes_no_more_memory_than_a_stream(rows: va.Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither has many more images waiting than a batch."""
    waiting, most, outputs, lock = 0, 0, Pipeline.outputs, threading.Lock()

    def counted(image: Tensor) -> Tensor:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return image

    def computed(self: Pipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal waiting
        waiting -= len(pixels)
        return outputs(self, pixels)

    monkeypatch.setattr(Pipeline, "outputs", computed)
    predictor = predictor_with(None, counted)
    streamed = [prediction for prediction, _ in predictor.stream(rows)]
    most_streamed, most = most, 0
    found = predictor.predict([Path(row.location or "") for row in rows])
    assert [each.probabilities for each in found] == [each.probabilities for each in streamed]
    assert 0 < most <= most_streamed
