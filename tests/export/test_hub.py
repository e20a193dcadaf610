"""A pushed classifier is timm's own where it merges, comes back as it was, and holds nothing of the user's machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image

import visionadapt as va
from visionadapt.errors import RunError, UsageError, without_secrets
from visionadapt.export.hub_layout import write_layout
from visionadapt.runs import trust
from visionadapt.runs.hub import local_run
from visionadapt.serve.runs import open_runs

from ..conftest import tinted
from .conftest import CLASSES, saved_run
from .hub_server import Hub, hub_in_use

Run = Callable[..., tuple[int, str]]
NAME = "someone/colours"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_in_use(tmp_path / "cache", monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def layout(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layout") / "colours"
    assert write_layout(run, out, NAME) is None
    return out


def pushed(hub: Hub, layout: Path) -> None:
    hub.files[NAME] = {
        path.relative_to(layout).as_posix(): path.read_bytes() for path in layout.rglob("*") if path.is_file()
    }


def test_timm_gives_the_calibrated_probabilities(run: Path, layout: Path) -> None:
    model = timm.create_model(f"local-dir:{layout}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert tuple(config["input_size"]) == (3, 64, 64) and config["crop_mode"] == "squash"
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    predictor = va.load(run)
    images = [Image.fromarray(np.asarray(tinted((64, 64), number, number))) for number in range(3)]
    pixels = torch.stack([timm.data.create_transform(**config)(image) for image in images])
    with torch.no_grad():
        found = model(pixels).softmax(1).numpy()
    assert np.abs(found - predictor.predict_proba(images)).max() < 1e-4


def test_no_image_path_or_option_leaves_the_machine(run: Path, layout: Path) -> None:
    files = sorted(path.relative_to(layout).as_posix() for path in layout.rglob("*") if path.is_file())
    assert files == [
        "README.md", "config.json", "model.safetensors", "visionadapt.json", "visionadapt/calibration.json",
        "visionadapt/calibration.safetensors", "visionadapt/classes.json", "visionadapt/config.json",
        "visionadapt/model.safetensors", "visionadapt/plan.json", "visionadapt/preprocess.json",
    ]  # fmt: skip
    secret = str(run.parent).encode()
    assert not any(secret in path.read_bytes() for path in layout.rglob("*") if path.is_file())
    card = (layout / "README.md").read_text()
    assert card.startswith("---\nlicense: ") and "library_name: timm" in card
    assert all(f'    "{name}"\n' in card for name in CLASSES) and "0.4000" in card and NAME in card


def test_a_classifier_that_timm_cannot_hold_is_pushed_without_its_files(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", adapter="bottleneck(rank=2, blocks=last:1)")
    refused = write_layout(run, tmp_path / "out", NAME)
    assert refused is not None and not (tmp_path / "out" / "config.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: visionadapt" in card and "create_model" not in card
    with pytest.raises(RunError, match="there already"):
        write_layout(run, tmp_path / "out", NAME)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for out, name in ((tmp_path / "mine", NAME), (tmp_path / "other", "../secret")):
        with pytest.raises(UsageError):
            write_layout(run, out, name, overwrite=True)


@pytest.mark.slow
def test_what_is_pushed_comes_back_the_same(run: Path, hub: Hub, visionadapt: Run, tmp_path: Path) -> None:
    tinted((40, 30), 1, 1).save(tmp_path / "a.png")
    code, output = visionadapt("push", run, NAME)
    assert code == 0 and f"{hub.url}/{NAME}" in output and hub.private[NAME]
    own = va.load(run).predict(tmp_path / "a.png")
    found = va.load(f"hf://{NAME}").predict(tmp_path / "a.png")
    assert (found.label, found.distance) == (own.label, own.distance)
    assert found.probabilities == pytest.approx(own.probabilities, abs=1e-6)
    code, output = visionadapt("predict", f"hf://{NAME}@main", tmp_path / "a.png")
    assert code == 0 and own.label in output
    asked = len(hub.requests)
    assert local_run(f"hf://{NAME}@{'c' * 40}").is_dir() and len(hub.requests) == asked
    model = timm.create_model(f"hf-hub:{NAME}", pretrained=True)
    assert model.num_classes == len(CLASSES)


@pytest.mark.slow
def test_every_command_that_takes_a_run_takes_one_of_the_hub(
    layout: Path, hub: Hub, visionadapt: Run, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    pushed(hub, layout)
    run, data = f"hf://{NAME}", tinted_folder()
    image = next(data.rglob("*.png"))

    def done(*arguments: object) -> str:
        code, output = visionadapt(*arguments)
        assert code == 0, output
        return output

    done("evaluate", run, "--data", data, "--against", run, "--out", tmp_path / "evaluated")
    assert NAME in (tmp_path / "evaluated" / "report.html").read_text()
    done("export", run, "--out", tmp_path / "exported")
    done("verify", tmp_path / "exported", "--run", run)
    done("verify", run)
    done("export", run, "--format", "bundle", "--out", tmp_path / "bundle")
    done("embed", data, "--run", run, "--out", tmp_path / "features.npz", "--cache", tmp_path / "features")
    assert image.name in done("search", tmp_path / "features.npz", image, "--run", run, "--top", 1)
    done("push", run, NAME, "--out", tmp_path / "again")
    assert list(open_runs([run], "cpu", None)) == ["colours"]
    for command in (("evaluate", run, "--data", data), ("report", run)):
        code, output = visionadapt(*command)
        assert code == 2 and output.count("\n") == 1 and run in output
    assert not Path("hf:").exists()


def test_what_the_manifest_does_not_name_is_not_taken(layout: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.relative_to(layout).as_posix(): path.read_bytes() for path in layout.rglob("*") if path.is_file()}
    weights = files["visionadapt/model.safetensors"]
    manifest = json.loads(files["visionadapt.json"])

    def listing(name: str, **facts: object) -> bytes:
        return json.dumps({**manifest, "files": {**manifest["files"], name: facts}}).encode()

    digest = manifest["files"]["model.safetensors"]["sha256"]
    for repository, changed, problem in (
        ("a/other-bytes", {"visionadapt/model.safetensors": weights[:-1] + b"?"}, "is not the file"),
        ("a/too-long", {"visionadapt/model.safetensors": weights + b"?"}, "more than"),
        ("a/code", {"visionadapt.json": listing("run.py", bytes=1, sha256="0")}, "not this version's"),
        ("a/outside", {"visionadapt.json": listing("../x", bytes=1, sha256="0")}, "not this version's"),
        ("a/huge", {"visionadapt.json": listing("model.safetensors", bytes=1 << 40, sha256=digest)}, "not this"),
        ("a/no-json", {"visionadapt.json": b"{"}, "not this version's"),
    ):
        hub.files[repository] = {**files, **changed}
        with pytest.raises(RunError, match=problem):
            va.load(f"hf://{repository}")
    hub.files["a/timm"] = {"config.json": b"{}"}
    with pytest.raises(RunError, match="holds no run"):
        va.load("hf://a/timm")
    with pytest.raises(RunError, match="not there"):
        va.load("hf://a/gone")
    with pytest.raises(RunError, match="names no repository") as caught:
        va.load("hf://a/../b")
    assert "ORG/NAME," in without_secrets(str(caught.value))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match=r"hf://a/far@v1 is not in the cache .* HF_HUB_OFFLINE is set"):
        va.load("hf://a/far@v1")


def test_a_file_cannot_start_a_download() -> None:
    assert trust.wants("from_run", f"hf://{NAME}") == [f"download hf://{NAME}"]


@pytest.mark.slow
def test_training_starts_from_a_pushed_classifier(
    layout: Path, hub: Hub, visionadapt: Run, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    pushed(hub, layout)
    out = tmp_path / "second"
    code, output = visionadapt(
        "train", "--data", tinted_folder(), "--from", f"hf://{NAME}", "--out", out, "--epochs", 1, "--workers", 0
    )
    assert code == 0, output
    assert json.loads((out / "config.json").read_text())["options"]["adapter"].startswith("lora(")
