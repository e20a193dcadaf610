"""What the plan decides from what facts, and that no decision changes what is learned."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.data.dataset import ImageDataset
from visionadapt.frozen.engines import Prefix
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import Job, bytes_at_cuts, choose_engine, choose_kept, explain, make_plan
from visionadapt.frozen.timing import Measurements
from visionadapt.images.decode import DecodeAdapter
from visionadapt.model.classifier import Classifier

Make = Callable[..., Path]

SIZES = [150, 400, 300, 100, 2]
"""Bytes of a picture at five cuts: pixels, behind the stem, behind two blocks, features."""


@pytest.mark.parametrize(
    ("room", "trained", "expected"),
    [
        (100_000, 4, (4, True)),
        (100_000, 2, (2, True)),
        (30_000, 2, (2, True)),
        (29_999, 2, (0, True)),
        (15_000, 1, (0, True)),
        (14_999, 2, (2, False)),
        (14_999, 3, (3, True)),
        (0, 4, (4, False)),
    ],
)
def test_the_deepest_cut_that_fits_is_kept(room: int, trained: int, expected: tuple[int, bool]) -> None:
    assert choose_kept("auto", SIZES, trained, 100, room) == expected


@pytest.mark.parametrize(
    ("wish", "expected"), [("features", (3, True)), ("pixels", (0, True)), ("nothing", (3, False))]
)
def test_a_wish_is_followed(wish: str, expected: tuple[int, bool]) -> None:
    assert choose_kept(wish, SIZES, 3, 100, 0) == expected


def small(classes: tuple[str, ...] = ("a", "b"), adapter: str | None = None) -> Classifier:
    return va.classifier("tf_efficientnet_lite0", classes, adapter, "none", image_size=64)


def test_bytes_at_the_cuts_are_those_of_the_tensors() -> None:
    model = small()
    sizes = bytes_at_cuts(model, "bfloat16")
    assert sizes[0] == 3 * 64 * 64
    assert sizes[1] == 32 * 32 * 32 * 2
    assert sizes[-1] == 1280 * 2
    assert bytes_at_cuts(model, "float32")[1:] == [2 * size for size in sizes[1:]]


def figures(seconds: dict[str, float], agreeing: set[str]) -> Callable[..., dict[str, float]]:
    def measure(name: str, frozen: FrozenPart, prefix: Prefix, measured: Measurements) -> dict[str, float]:
        return {"agrees": name in agreeing, "seconds_a_picture": seconds[name], "seconds_to_build": 20.0, "error": 0.0}

    return measure


SECONDS = {"folded": 0.01, "eager": 0.02, "onnx": 0.008, "compiled": 0.005}


@pytest.mark.parametrize(
    ("pictures", "agreeing", "expected"),
    [
        (100, set(SECONDS), "eager"),
        (1_000, set(SECONDS), "folded"),
        (1_000, {"eager", "onnx"}, "eager"),
        (100_000, set(SECONDS), "compiled"),
        (100_000, {"eager", "folded", "onnx"}, "onnx"),
    ],
)
def test_the_engine_pays_for_its_building(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pictures: int, agreeing: set[str], expected: str
) -> None:
    monkeypatch.setattr("visionadapt.frozen.planning.engine_figures", figures(SECONDS, agreeing))
    assert (
        choose_engine(FrozenPart(small()), Prefix(3, "float32", "cpu", 8, 1), "auto", pictures, Measurements(tmp_path))
        == expected
    )


def test_the_choice_for_a_long_job_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prefix, frozen = Prefix(3, "float32", "cpu", 8, 1), FrozenPart(small())
    choices = []
    for slow in ("compiled", "onnx"):
        monkeypatch.setattr("visionadapt.frozen.planning.engine_figures", figures({**SECONDS, slow: 0.5}, set(SECONDS)))
        choices.append(choose_engine(frozen, prefix, "auto", 100_000, Measurements(tmp_path)))
    assert choices == ["onnx", "onnx"]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    measured = Measurements(tmp_path / "new")
    assert measured.once({"what": 1}, lambda: 0.5) == 0.5
    assert Measurements(tmp_path / "new").once({"what": 1}, lambda: 9.0) == 0.5
    assert measured.once({"what": 2}, lambda: 9.0) == 9.0


@pytest.mark.parametrize("content", ["[]", "{", '{"KEY": 3}', '{"KEY": {}}'])
def test_a_damaged_file_of_measurements_is_measured_anew(tmp_path: Path, content: str) -> None:
    Measurements(tmp_path).once({"what": 1}, lambda: 0.5)
    (key,) = json.loads((tmp_path / "measurements.json").read_text())
    (tmp_path / "measurements.json").write_text(content.replace("KEY", key))
    assert Measurements(tmp_path).once({"what": 1}, lambda: 0.25) == 0.25
    assert Measurements(tmp_path).once({"what": 1}, lambda: 9.0) == 0.25


def trained(folder: Path, cache: Path, **settings: object) -> tuple[Classifier, list[va.Epoch]]:
    source = sources.FolderSource(folder)
    train, val = va.split(source)
    model = small(source.classes, "bottleneck(rank=2, blocks=last:1)")
    wanted = va.TrainingSettings(epochs=2, precision="float32", **settings)  # type: ignore[arg-type]
    return model, list(va.fit(model, train, val, va.preprocessing_for(model), settings=wanted, cache=cache))


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["none", "light"])
@pytest.mark.parametrize("keep", ["pixels", "nothing"])
def test_what_is_kept_changes_no_result(tinted_folder: Make, tmp_path: Path, keep: str, augment: str) -> None:
    folder = tinted_folder()
    _, expected = trained(folder, tmp_path / "features", augment=augment)
    _, found = trained(folder, tmp_path / keep, keep=keep, augment=augment)
    for one, other in zip(expected, found, strict=True):
        assert other.val_loss == pytest.approx(one.val_loss, rel=1e-4)
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    assert bool(list((tmp_path / keep).glob("*/x.bin"))) == (keep == "pixels")


@pytest.mark.slow
def test_without_room_nothing_is_written(tinted_folder: Make, tmp_path: Path) -> None:
    source = sources.FolderSource(tinted_folder())
    model = small(source.classes)
    settings = va.TrainingSettings(epochs=1)
    prepare = va.preprocessing_for(model)
    plan = make_plan(FrozenPart(model), settings, Job(60, 20, tmp_path, cache_limit=10), prepare)
    assert not plan.kept
    lines = explain(model, plan, settings, Job(60, 20, tmp_path, cache_limit=10))
    assert "kept: nothing (bfloat16 features" in lines[1] or "kept: nothing (float32 features" in lines[1]
    assert "do not fit into 10 B; see --cache-limit" in lines[1]
    wished = va.TrainingSettings(epochs=1, keep="nothing")
    plan = make_plan(FrozenPart(model), wished, Job(60, 20, tmp_path), prepare)
    assert explain(model, plan, wished, Job(60, 20, tmp_path))[1].startswith("kept: nothing")
    unknown = dataclasses.replace(plan, estimate={"total_seconds": 1.0})
    assert len(explain(model, unknown, settings, Job(60, 20, tmp_path))) == len(lines) - 1


def test_time_is_expected_from_a_step_as_it_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suffix, images = Pipeline.suffix, []

    def followed(self: Pipeline, state: dict[str, torch.Tensor]) -> torch.Tensor:
        images.append(len(next(iter(state.values()))))
        return suffix(self, state)

    monkeypatch.setattr(Pipeline, "suffix", followed)
    model = small(adapter="bottleneck(rank=2, blocks=last:1)")
    settings = va.TrainingSettings(epochs=3, batch_size=20, head="trained")
    job = Job(60, 20, tmp_path)
    expected = make_plan(FrozenPart(model), settings, job, va.preprocessing_for(model)).estimate
    assert images[-1] == 20
    parts = {name: expected[f"{name}_seconds"] for name in ("read", "prefix", "begin", "epoch", "total")}
    assert 0 < parts["begin"] < parts["epoch"]  # the solved head beside the adapters, which is validated too
    assert parts["total"] == pytest.approx(sum(parts.values()) - parts["total"] + 2 * parts["epoch"], abs=0.01)


@pytest.mark.slow
def test_a_warm_cache_needs_no_decoding_and_tells_the_same(
    tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tinted_folder()
    (folder / "blood" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    rotated = next(iter(sorted((folder / "grass").iterdir())))
    from PIL import Image

    picture = Image.open(rotated)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(folder / "grass" / "turned.jpg", exif=exif)
    rows = sources.FolderSource(folder)
    model = small(rows.classes)
    prepare = va.preprocessing_for(model)
    plan = make_plan(FrozenPart(model), va.TrainingSettings(), Job(10, 10, tmp_path))
    manifest = va.Manifest(rows, rows)

    def findings() -> tuple[object, ...]:
        from visionadapt.frozen.features import compute_features

        pipeline = Pipeline(FrozenPart(model), prepare, plan)
        return compute_features(pipeline, manifest, va.TrainingSettings(workers=0), tmp_path).findings

    first = findings()
    assert any(finding.problem for finding in first)  # type: ignore[attr-defined]
    assert any(finding.repairs for finding in first)  # type: ignore[attr-defined]
    monkeypatch.setattr(DecodeAdapter, "decode", lambda *args: pytest.fail("decoded again"))
    assert findings() == first


def test_a_row_without_its_views_is_decoded(tinted_folder: Make) -> None:
    rows = sources.FolderSource(tinted_folder())
    manifest = va.Manifest(rows, rows)
    prepare = va.preprocessing_for(small(rows.classes))
    dataset = ImageDataset(manifest, prepare, va.images.Augmentation("light"), (1, 2))
    one, two = dataset[0].identities
    pixels = ImageDataset(manifest, prepare, va.images.Augmentation("light"), (1, 2), known={one})[0]
    assert pixels.identities == (two,)
    assert torch.equal(pixels.pixels[0], dataset[0].pixels[1])  # type: ignore[index]
