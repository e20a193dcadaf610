"""Flipped bits and cut files, wherever a run or its cache is read back: noticed in one line, or without any effect."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import visionadapt as va
from visionadapt import sources
from visionadapt.backbones import loading
from visionadapt.errors import BackboneError, RunError, VisionAdaptError
from visionadapt.frozen.cache.store import FeatureCache
from visionadapt.prediction.predictor import Predictor
from visionadapt.pull.pull import pull
from visionadapt.runs.ledger import ledger_rows
from visionadapt.runs.saved import read_calibration, read_plan, write_calibration
from visionadapt.runs.tensors import read_checkpoint, read_tensors, write_checkpoint, write_tensors
from visionadapt.training.epochs import TrainingState

from ..conftest import SMALL_BACKBONE, tinted

Run = Callable[..., tuple[int, str]]
NUMBERS = (40, pytest.param(200, marks=pytest.mark.slow))
SETTINGS = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 32, "workers": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for label, name in enumerate(("blood", "grass")):
        (folder / name).mkdir()
        for number in range(8):
            tinted((40, 40), label, number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    adapter = "bottleneck(rank=2, blocks=last:1)"
    va.train(str(data), out=folder / "run", epochs=2, adapter=adapter, cache=str(folder / "cache"), **SETTINGS)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def harms(path: Path, count: int) -> Iterator[str]:
    """Flip one bit at `count` places and cut the file at others, one at a time; the last step restores it."""
    draw, content = random.Random(path.name), path.read_bytes()
    for number in range(count):
        place = draw.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content[:place] if number % 4 == 3 else flipped)
        yield f"{path.name} at {place}, number {number}"
    path.write_bytes(content)


def same(one: Any, two: Any) -> bool:
    """Whether two values are equal, tensors bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def check(path: Path, count: int, read: Callable[[], Any], least: float = 0.5) -> None:
    """Every harm to a file must be noticed, or change nothing that is read; most of them must be noticed."""
    expected, noticed = read(), 0
    for what in harms(path, count):
        try:
            assert same(expected, read()), what
        except VisionAdaptError as error:
            noticed += 1
            assert "\n" not in str(error) and str(path.parent) in str(error), error
    assert noticed >= least * count


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("name", ["model", "golden", "calibration"])
def test_flips_and_cuts_in_tensors(run: Path, name: str, count: int) -> None:
    path = run / f"{name}.safetensors"
    check(path, count, lambda: read_tensors(path), 0.9)


@pytest.mark.parametrize("name", ["plan.json", "calibration.json"])
def test_flips_and_cuts_in_json(run: Path, name: str) -> None:
    check(run / name, 40, lambda: (read_plan(run), read_calibration(run).to_json()), 0.9)


@pytest.mark.parametrize("name", ["classes.json", "preprocess.json"])
def test_what_stands_twice_must_be_equal(run: Path, name: str) -> None:
    expected = predictions(va.load(run))
    for what in harms(run / name, 3):
        with pytest.raises(RunError, match=name):
            pytest.fail(f"{what} is believed" if same(expected, predictions(va.load(run))) else what)


@pytest.mark.parametrize("count", NUMBERS)
def test_flips_and_cuts_in_the_ledger(run: Path, count: int) -> None:
    check(run / "ledger.parquet", count, lambda: list(ledger_rows(run)), 0.9)


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("packed", [True, False])
def test_flips_and_cuts_in_a_pulled_manifest(data: Path, tmp_path: Path, packed: bool, count: int) -> None:
    folder = tmp_path / "pulled"
    pull(sources.FolderSource(data), folder)

    def read() -> Any:
        source = sources.ManifestSource(folder)
        files = [source.read(record) for record in source]
        rows = [(record.key, record.labels, record.group, record.split) for record in source]
        return source.classes, rows, files, source.fingerprint

    if not packed:
        (folder / "manifest.packed").unlink()
    # damage to the packed columns is repaired from the Parquet file
    check(folder / ("manifest.packed" if packed else "manifest.parquet"), count, read, 0 if packed else 0.9)


def predictions(predictor: Predictor) -> list[Any]:
    image = tinted((40, 40), 1, 3)
    return [dataclasses.astuple(predictor.predict(image))]


@pytest.mark.parametrize("count", NUMBERS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path: Path, count: int) -> None:
    fixed, said = {"learning_rate": 0.1}, []
    for epoch in (1, 2):
        tensors = {"weights/a": torch.full((300,), 0.1 * epoch), "best/a": torch.rand(300)}
        write_checkpoint(tmp_path, TrainingState(tensors, {"epoch": epoch, "best_epoch": 1}), fixed)
    latest = tmp_path / "checkpoint.safetensors"
    whole = read_checkpoint(tmp_path, fixed, said.append)
    assert whole is not None and whole.facts["epoch"] == 2 and not said
    for what in harms(latest, count):
        said.clear()
        state = read_checkpoint(tmp_path, fixed, said.append)
        assert state is not None
        if said:
            assert state.facts["epoch"] == 1 and str(latest) in said[0], what
        else:
            assert same(state.tensors, whole.tensors) and state.facts == whole.facts, what
    latest.write_bytes(b"")
    (tmp_path / "checkpoint-before.safetensors").unlink()
    with pytest.raises(RunError, match=r"checkpoint\.safetensors"):
        read_checkpoint(tmp_path, fixed, said.append)


def test_other_settings_than_those_of_the_checkpoint_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TrainingState({"a": torch.ones(1)}, {"epoch": 1}), {"learning_rate": 0.1})
    with pytest.raises(RunError, match=r"config\.json .*--learning-rate was 0.1, and is 0.3"):
        read_checkpoint(tmp_path, {"learning_rate": 0.3}, print)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        read_checkpoint(tmp_path, {"learning_rate": 0.1}, print)


@pytest.mark.slow
def test_a_run_goes_on_from_the_sound_checkpoint_to_the_same_bits(run: Path, visionadapt: Run) -> None:
    model = (run / "model.safetensors").read_bytes()
    (run / "summary.json").unlink()
    (run / ".writing-0123").write_bytes(b"rest of a killed process")
    for _ in harms(run / "checkpoint.safetensors", 1):
        code, output = visionadapt("train", "--resume", run, "--trust-run")
        assert code == 0, output
        assert f"{run / 'checkpoint.safetensors'} cannot be read" in output
        assert (run / "model.safetensors").read_bytes() == model
        assert not list(run.glob(".writing-*"))


@pytest.mark.parametrize(
    "changes",
    [{"temperature": -1.0}, {"temperature": 0}, {"temperature": float("nan")}, {"threshold": 5.0}, {"pictures": "x"}],
)
def test_a_calibration_out_of_range_is_refused(run: Path, changes: dict[str, Any]) -> None:
    stored = {**read_calibration(run).to_json(), **changes}
    (run / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match=r"calibration\.json"):
        va.load(run)


@pytest.mark.parametrize("name", ["unit", "means"])
def test_a_distance_that_is_not_finite_is_refused(run: Path, name: str) -> None:
    calibration = read_calibration(run)
    assert calibration.distance is not None
    broken = dataclasses.replace(calibration.distance, **{name: getattr(calibration.distance, name) * torch.nan})
    write_calibration(run, dataclasses.replace(calibration, distance=broken))
    with pytest.raises(RunError, match=rf"calibration\.safetensors .* {name}"):
        va.load(run)


DEEP = json.loads("[" * 400 + "]" * 400)


@pytest.mark.parametrize("fact", ["backbone", "classes", "image_size", "seed", "adapter", "preprocessing", "weights"])
@pytest.mark.parametrize("value", [None, [], 1.5, {"a": 1}, DEEP])
def test_wrong_facts_of_a_model_are_one_line(run: Path, fact: str, value: Any) -> None:
    tensors, facts = read_tensors(run / "model.safetensors")
    write_tensors(run / "model.safetensors", tensors, {**facts, fact: value})
    with pytest.raises(VisionAdaptError) as caught:
        va.load(run)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("field", ["cut", "threads", "engine", "versions", "kept", "device"])
@pytest.mark.parametrize("value", [None, [], "x", -1, DEEP])
def test_a_wrong_plan_is_one_line(run: Path, field: str, value: Any) -> None:
    plan = {**read_plan(run).to_json(), field: value}
    if field == "device" and isinstance(value, str):
        return
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(RunError, match=r"plan\.json"):
        read_plan(run)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = loading.load(SMALL_BACKBONE, "none").model
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name].view(-1)[3] = torch.nan
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=rf"weights\.safetensors: {name}"):
        loading.load(SMALL_BACKBONE, tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["x", "ids", "sums"])
def test_damaged_rows_of_the_cache_are_known_as_such(tmp_path: Path, name: str) -> None:
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    names = [bytes([number]) * 32 for number in range(6)]
    FeatureCache(tmp_path, {}).append(names, {"x": rows})
    path = FeatureCache(tmp_path, {}).folder / f"{name}.bin"
    for what in harms(path, 40):
        cache = FeatureCache(tmp_path, {})
        found = [number for number in range(6) if names[number] in cache.rows]
        places = np.array([cache.rows[names[number]] for number in found], np.int64)
        damaged = cache.damaged(places)
        for number, place, lost in zip(found, places, damaged, strict=True):
            assert lost or torch.equal(cache.read([place])["x"][0], rows[number]), what
        if damaged.any():
            cache.repair(places[damaged], {"x": rows[np.array(found)[damaged]]})
        assert not FeatureCache(tmp_path, {}).damaged(places).any()
        assert torch.equal(cache.read(places)["x"], rows[found])


@pytest.mark.slow
def test_flips_in_the_cache_give_the_same_model(trained: Path, data: Path, tmp_path: Path) -> None:
    expected = read_tensors(trained / "model.safetensors")[0]
    (space,) = [path.parent for path in (trained.parent / "cache").glob("*/layout.json")]
    cache, draw = tmp_path / "cache", random.Random(1)
    for number in range(6):
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree(space, cache / space.name)
        for path in (cache / space.name).glob("*.bin"):
            content = bytearray(path.read_bytes())
            for _ in range(3):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
        adapter = "bottleneck(rank=2, blocks=last:1)"
        run = va.train(str(data), out=tmp_path / str(number), epochs=2, adapter=adapter, cache=str(cache), **SETTINGS)
        assert same(read_tensors(run / "model.safetensors")[0], expected)


@pytest.mark.parametrize("name", ["layout.json", "remarks.jsonl", "space.json"])
def test_flips_in_the_text_files_of_the_cache(tmp_path: Path, name: str) -> None:
    cache = FeatureCache(tmp_path, {"cut": 1})
    cache.append([bytes(32)], {"x": torch.ones(1, 5)})
    cache.remark({"a": (("turned",), None), "b": ((), "no image")})

    def read() -> Any:
        again = FeatureCache(tmp_path, {"cut": 1})
        again.append([bytes(32)], {"x": torch.ones(1, 5)})
        return again.read([again.rows[bytes(32)]]), again.remarks() if name == "remarks.jsonl" else None

    path, expected, size = cache.folder / name, read(), (cache.folder / name).stat().st_size
    for what in harms(path, 40):
        try:
            assert same(expected, read()) or (name == "remarks.jsonl" and path.stat().st_size < size), what
        except RunError as error:
            assert str(cache.folder) in str(error)


@pytest.mark.parametrize("value", [5, 1.5, True, [1], {"a": 1}])
@pytest.mark.parametrize("option", ["backbone", "adapter", "data"])
def test_a_wrong_option_in_the_settings_is_one_line(run: Path, visionadapt: Run, option: str, value: Any) -> None:
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["options"][option] = value
    (run / "config.json").write_text(json.dumps(config))
    code, output = visionadapt("train", "--resume", run, "--trust-run")
    assert code == 2 and option in output and "Traceback" not in output
