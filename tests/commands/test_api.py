"""`va.train` and `va.evaluate` are the commands, with objects in place of text."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import visionadapt as va
from visionadapt import adapters, images, sources
from visionadapt.errors import RunError, SourceError, UsageError

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
SMALL: dict[str, Any] = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 64, "workers": 0, "epochs": 1}


def config(run: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return stored


@pytest.mark.slow
def test_training_prints_nothing_and_equals_the_command(
    visionadapt: Callable[..., tuple[int, str]],
    tinted_folder: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = tinted_folder(), tmp_path / "run"
    run = va.train(data, out=out, adapter=adapters.LoRA(rank=2), resize=images.ResizeAdapter(64, "squash"), **SMALL)
    captured = capsys.readouterr()
    assert (run, captured.out, captured.err) == (out, "", "")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    given = ("--adapter", "lora(rank=2)", "--resize", "squash(size=64)")
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "same", *given, *words)
    assert code == 0, output
    assert config(run)["settings"] == config(tmp_path / "same")["settings"]
    assert config(run)["options"] | {"out": None} == config(tmp_path / "same")["options"] | {"out": None}
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "same" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_progress_is_what_the_command_prints(
    tinted_folder: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = va.train(str(tinted_folder()), out=tmp_path / "run", adapter=None, progress=True, **SMALL)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert f"run folder: {run}" in captured.err and "validation accuracy" in captured.err
    assert config(run)["options"]["adapter"] == "none"


@pytest.mark.slow
def test_a_source_is_named_in_the_run_folder_and_the_run_resumes(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder()
    table = tmp_path / "labels.csv"
    rows = [f"{path.relative_to(data)},{path.parent.name}" for path in sorted(data.rglob("*.png"))]
    table.write_text("\n".join(["file,label", *rows]))
    source = sources.TableSource(table, "file", "label", root=data)
    run = va.train(source, out=tmp_path / "run", adapter=None, **SMALL)
    before = (run / "model.safetensors").read_bytes()
    (run / "summary.json").unlink()
    (run / "model.safetensors").unlink()
    assert va.train(resume=run) == run
    assert (run / "model.safetensors").read_bytes() == before


@dataclass(frozen=True)
class Elsewhere:
    """A source of the user's own."""

    root: str


class NoDataclass:
    pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": 3}, ("'epoch'", "'epochs'")),
        ({"batchsize": 3}, ("'batchsize'", "'batch_size'")),
        ({"epochs": 0}, ("--epochs",)),
        ({"data": NoDataclass()}, ("data", "NoDataclass")),
        ({"augment": lambda pixels: pixels}, ("augment", "module:name")),
        ({}, ("--data",)),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        va.train(**options)
    assert all(word in str(caught.value) for word in words)
    assert "__init__" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_evaluation_takes_a_run_or_a_predictor_and_any_rows(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder()
    run = va.train(data, out=tmp_path / "run", adapter=None, **SMALL)
    source = sources.FolderSource(data)
    by_folder = va.evaluate(run, data, workers=0)
    assert len(by_folder.predictions) == 20 and by_folder.trained_on == 16
    for rows in (str(data), source, va.Manifest(source, source)):
        again = va.evaluate(va.load(run), rows, workers=0)
        assert again.figures()["accuracy"] == by_folder.figures()["accuracy"]
        assert again.trained_on == 0
    sliced = va.evaluate(run, data, slice_by=["label"], workers=0)
    assert {row["value"] for row in sliced.figures()["slices"]["label"]} == {"blood", "grass"}
    with pytest.raises(SourceError, match="--split"):
        va.evaluate(run, data, split="test")
    with pytest.raises(RunError):
        va.evaluate(tmp_path / "missing", data)


@pytest.mark.slow
def test_a_command_module_never_replaces_the_function_of_its_name() -> None:
    code = """
import importlib, sys
import visionadapt as va
names = ("train", "evaluate", "audit")
for name in names:
    importlib.import_module(f"visionadapt.{name}")
    for each in names:
        assert callable(getattr(va, each)) and getattr(va, each).__name__ == each, (name, each)
    module = importlib.import_module(f"visionadapt.{name}")
    space = {}
    exec(f"from visionadapt.{name} import app", space)
    assert module is sys.modules[f"visionadapt.{name}"] and module.app is space["app"]
    importlib.reload(module)
    exec(f"from visionadapt import {name}", space)
    assert space[name] is getattr(va, name) and callable(space[name])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(va.__file__).parents[1]
    )
    assert (done.returncode, done.stderr) == (0, "")


PUBLIC = {
    "visionadapt": """
        Classifier Epoch Manifest Prediction Predictor Record SharedClassifiers TrainingSettings adapters audit
        backbones calibrate classifier curves ensemble errors evaluate fit folds heat_maps images load loader
        preprocessing_for save sources split tasks timm_model train with_measured_range
    """,
    "visionadapt.adapters": """
        AdaptFormer AdapterSettings Attached BitFit Bottleneck ConvAdapter Convpass DoRA FullFineTuning IA3
        LinearProbeFineTuning LoRA NormTuning ParameterGroup PartialFineTuning Placement RepAdapter SSF
        SideNetwork VPT attach choose detach find_sites frozen_in hold load_state merge mixed names
        parameter_groups probe release select state switch trainable
    """,
    "visionadapt.auditing": """
        Audit AuditFinding AuditSettings KINDS audit quick scan_shard summary write_audit
    """,
    "visionadapt.backbones": """
        Anatomy Backbone Block DataConfig Segment default_name load
    """,
    "visionadapt.images": """
        Augmentation DecodeAdapter Decoded Header NormalizeAdapter Placement Preprocessing ResizeAdapter
        augmentation compose picture_header preview seed_for
    """,
    "visionadapt.report": """
        NAME write_report
    """,
    "visionadapt.sources": """
        ApiSource BucketSource FileSource FolderSource ManifestSource MemorySource ShardSource SqlSource TableSource
    """,
    "visionadapt.tasks": """
        Classification ClassificationHead ConfusionMatrix LabelCounts MultiLabel TASKS Task TaskName
        Validation average_precision balanced_weights best_thresholds mean_average_precision no_thresholds
        plain_task positive_weights
    """,
    "visionadapt.trackers": """
        TrackedRun Tracker Tracking named
    """,
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    module = importlib.import_module(package)
    names = PUBLIC[package].split()
    assert sorted(module.__all__) == dir(module) == names
    for name in names:
        assert getattr(module, name) is not None
