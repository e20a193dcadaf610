"""A torch.export program gives the answers of `predict` in a process without this library and timm."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import visionadapt as va
from visionadapt.errors import UsageError
from visionadapt.export import torch_model
from visionadapt.export.export import export
from visionadapt.export.golden import reference
from visionadapt.export.torch_resize import resized
from visionadapt.export.verify import verify
from visionadapt.images import NormalizeAdapter, Preprocessing, ResizeAdapter
from visionadapt.prediction.predictor import Predictor
from visionadapt.system.storage import file_sha256

from .. import forked
from ..conftest import SMALL_BACKBONE, tinted
from .conftest import CLASSES, saved_run
from .test_export import SIZES
from .test_verify import SABOTAGE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def program(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("programs") / "exported", "torch", prepared=True)


@pytest.fixture(autouse=True)
def examples_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """That an example runs in a fresh process is a test of its own."""
    forked.run_examples(monkeypatch)


def opened(folder: Path, name: str = "model.pt2") -> Callable[..., dict[str, torch.Tensor]]:
    return torch.export.load(folder / name).module()


def test_images_of_any_size_and_number_get_the_answers_of_predict(run: Path, program: Path) -> None:
    predictor, model = va.load(run), opened(program)
    for number, size in enumerate(SIZES):
        images = np.stack([np.asarray(tinted(size, number, number + more)) for more in range(1 + number)])
        found = model(image=torch.from_numpy(images))
        own = predictor.predict(images[0])
        assert np.abs(found["probabilities"].numpy() - predictor.predict_proba(images)).max() < 1e-5
        assert CLASSES[int(found["class_index"][0])] == own.label
        assert bool(found["abstain"][0]) == own.abstain
        assert abs(float(found["distance"][0]) - own.distance) < 1e-4 * own.distance
        assert np.allclose(found["features"].numpy(), predictor.features(images), atol=1e-5)
        prepared = predictor.prepare.device(torch.stack([predictor.prepare.host(image) for image in images]))
        again = opened(program, "prepared.pt2")(prepared=prepared)
        assert torch.allclose(again["probabilities"], found["probabilities"], atol=1e-6)


def test_the_example_needs_neither_this_library_nor_timm(program: Path, tmp_path: Path) -> None:
    text = (program / "example.py").read_text()
    assert len(text.splitlines()) <= 20
    tinted((90, 50), 0, 0).save(tmp_path / "a.png")
    Image.fromarray(np.full((50, 90), 40_000, np.uint16)).save(tmp_path / "deep.png")
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torchvision', 'timm', 'visionadapt', 'onnx'])); "
    code = f"{blocked}import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    files = [str(tmp_path / name) for name in ("a.png", "deep.png")]
    command = [sys.executable, "-c", code, str(program / "example.py"), *files]
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    answer, deep = map(json.loads, answers)
    assert answer["label"] in CLASSES and 0 < answer["probability"] <= 1
    assert (answer["cut_to_8_bits"], deep["cut_to_8_bits"]) == (False, True)


def test_the_metadata_says_what_a_program_needs(program: Path) -> None:
    inside = {"metadata.json": ""}
    torch.export.load(program / "model.pt2", extra_files=inside)
    facts = json.loads(inside["metadata.json"])
    assert facts["class_names"] == list(CLASSES) and facts["temperature"] == 1.7 and facts["threshold"] == 0.4
    assert facts["adapter_merged"] is True


def test_several_labels_and_adapters_that_do_not_merge(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "multilabel", "bottleneck(rank=2, blocks=last:1)")
    folder = export(run, tmp_path / "exported", "torch")
    image = np.asarray(tinted((70, 50), 1, 1))
    found = opened(folder)(image=torch.from_numpy(image[None].copy()))
    own = va.load(run).predict(image)
    assert np.abs(found["probabilities"][0].numpy() - np.array(own.probabilities)).max() < 1e-5
    assert tuple(np.array(CLASSES)[found["has_class"][0].numpy()]) == own.labels
    assert all(check.passed for check in verify(folder, run, trust=True))


def test_grey_images_and_other_bands_are_exported_as_they_are_trained(tmp_path: Path) -> None:
    for channels, bands in ((1, None), (2, "1,3")):
        model = va.classifier(SMALL_BACKBONE, CLASSES, None, "none", 32, channels=channels)
        torch.nn.init.normal_(model.head.linear.weight)
        run = va.save(tmp_path / f"run{channels}", model, va.preprocessing_for(model, policy="letterbox", bands=bands))
        folder = export(run, tmp_path / f"exported{channels}", "torch")
        assert all(check.passed for check in verify(folder, run, trust=True))


def test_the_command_verifies_and_opens_no_strangers_program(
    visionadapt: Callable[..., tuple[int, str]], run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    code, text = visionadapt("export", run, "--out", out, "--format", "torch", "--json")
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert code == 0 and events[-1] == {"event": "export", "out": str(out), "verified": True}
    assert {event["path"] for event in events[:-1]} == {"files", "training", "predict", "model.pt2", "example.py"}
    assert visionadapt("verify", out)[0] == 2
    assert visionadapt("verify", out, "--trust")[0] == 0
    assert visionadapt("export", run, "--out", tmp_path / "more", "--format", "torch", "--precision", "int8")[0] == 2
    code, text = visionadapt("export", run, "--out", tmp_path / "more", "--format", "openvino")
    assert code == 2 and "ovc" in text


def another_mean(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    return prepared_by(predictor, normalize=NormalizeAdapter(mean=(0.5, 0.5, 0.5)))


def another_channel_order(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(torch_model, "resized", lambda resize, pixels: resized(resize, pixels).flip(1))
    return predictor


def another_policy(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    return prepared_by(predictor, resize=ResizeAdapter(64, policy="crop"))


def no_antialiasing(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    def scaled(resize: ResizeAdapter, pixels: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(pixels.float(), (64, 64), mode="bicubic").round().clamp(0, 255).to(torch.uint8)

    monkeypatch.setattr(torch_model, "resized", scaled)
    return predictor


def another_weight(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    largest = max(predictor.classifier.backbone.model.parameters(), key=lambda each: each.numel())
    with torch.no_grad():
        largest.view(-1)[5] += 1
    return predictor


def no_temperature(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    return dataclasses.replace(predictor, calibration=dataclasses.replace(predictor.calibration, temperature=1.0))


def prepared_by(predictor: Predictor, **changed: object) -> Predictor:
    steps = predictor.prepare.steps
    others = tuple(next((new for new in changed.values() if type(new) is type(step)), step) for step in steps)
    return dataclasses.replace(
        predictor, pipeline=dataclasses.replace(predictor.pipeline, prepare=Preprocessing(others))
    )


SABOTEURS: dict[str, Callable[[Predictor, pytest.MonkeyPatch], Predictor]] = {
    "mean": another_mean,
    "channel order": another_channel_order,
    "resize policy": another_policy,
    "antialias off": no_antialiasing,
    "permuted classes": lambda predictor, monkeypatch: predictor,
    "one changed weight": another_weight,
    "temperature dropped": no_temperature,
}


def model_alone(program: Path, folder: Path) -> dict[str, Any]:
    """Copy an export without its second model and its example, which would be run as well; give its manifest."""
    shutil.copytree(program, folder, ignore=shutil.ignore_patterns("prepared.pt2", "example.py"))
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    for name in ("prepared.pt2", "example.py"):
        del manifest["files"][name]
    return manifest


@pytest.mark.parametrize("name", SABOTEURS)
def test_sabotage_of_a_program_is_found_and_named(
    name: str, run: Path, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    manifest = model_alone(program, folder)
    names = ["grass", "blood", "sky"] if name == "permuted classes" else list(CLASSES)
    changed = SABOTEURS[name](reference(va.load(run, "cpu")), monkeypatch)
    made = torch_model.torch_files(changed, {"class_names": names})
    (folder / "model.pt2").write_bytes(made.files["model.pt2"])
    manifest["files"]["model.pt2"] = file_sha256(folder / "model.pt2")
    manifest["weights"] = made.facts["weights"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for checks in (verify(folder, run, trust=True), verify(folder, trust=True)):
        found = {check.path: " ".join(check.problems) for check in checks}
        assert SABOTAGE[name][1] in found["model.pt2"] and not found["files"]


def test_another_models_program_is_found(program: Path, tmp_path: Path) -> None:
    other = export(saved_run(tmp_path / "other", adapter=None), tmp_path / "exported", "torch")
    folder = tmp_path / "copy"
    (folder / "manifest.json").write_text(json.dumps(model_alone(program, folder)))
    shutil.copy(other / "model.pt2", folder / "model.pt2")
    with pytest.raises(UsageError, match="--trust"):
        verify(folder)
    found = {check.path: " ".join(check.problems) for check in verify(folder, trust=True)}
    assert "is not the exported one" in found["files"]
    assert "features differs" in found["model.pt2"] and "constants differ" in found["model.pt2"]
