"""Going on from a run: more epochs, other images or classes, and one run per fold."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.commands.going_on import check_further
from visionadapt.errors import UsageError
from visionadapt.model.classifier import load_trained_tensors
from visionadapt.runs.tensors import read_tensors, write_tensors

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --precision float32".split()
ADAPTED = (*SMALL, "--adapter", "bottleneck(rank=4, blocks=last:2)")
PROBE = (*SMALL, "--adapter", "none", "--head", "trained")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in {"seconds", "images_per_second"}} for line in lines(run)]


@pytest.mark.parametrize(("given", "epochs"), [((), 40), (("--epochs", 20), 20), (("--epochs", 3), 3)])
def test_few_images_get_more_epochs_unless_these_are_given(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, given: tuple[object, ...], epochs: int
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *ADAPTED, *given, "--max-minutes", 1e-9)
    assert code == 0, output
    assert f"epoch 1/{epochs}:" in output
    for resumed in ((), ("--epochs", epochs)):
        assert visionadapt("train", "--resume", run, *resumed, "--max-minutes", 1e-9)[0] == 0
        assert json.loads((run / "config.json").read_text())["settings"]["epochs"] == epochs


def test_a_finished_run_gets_more_epochs_on_the_schedule_of_a_longer_one(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    given = (*ADAPTED, "--epochs", 2, "--batch-size", 4, "--learning-rate", 0.004)
    assert visionadapt("train", "--data", data, "--out", run, *given)[0] == 0
    before = lines(run)
    shutil.copytree(run, tmp_path / "stopped")
    code, output = visionadapt("train", "--resume", run, "--epochs", 4)
    assert code == 0, output
    assert lines(run)[:2] == before
    steps, rising = 16, 2  # 4 epochs of 4 steps, a tenth of them warming up
    halves = [math.cos(math.pi * (step - rising) / (steps - rising)) / 2 + 0.5 for step in (11, 15)]
    assert [line["learning_rate"] for line in lines(run)[2:]] == pytest.approx([0.004 * half for half in halves])
    assert json.loads((run / "config.json").read_text())["settings"]["epochs"] == 4
    # stopped after each epoch, it ends with the same bits
    stopped = tmp_path / "stopped"
    for _ in range(2):
        code, output = visionadapt("train", "--resume", stopped, "--epochs", 4, "--max-minutes", 1e-9)
        assert code == 0, output
    assert without_time(stopped) == without_time(run)
    assert (stopped / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_more_epochs_than_the_default_are_given_by_its_number_too(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    visionadapt("train", "--data", data, "--out", run, *PROBE, "--epochs", 3)
    assert "finished already" in visionadapt("train", "--resume", run)[1]
    code, output = visionadapt("train", "--resume", run, "--epochs", 2)
    assert (code, output.count("\n")) == (2, 1)
    assert "--epochs 2" in output
    assert "finished already" in visionadapt("train", "--resume", run, "--epochs", 3)[1]
    assert visionadapt("train", "--resume", run, "--epochs", 20)[0] == 0
    assert len(lines(run)) == 20


def test_a_run_that_its_patience_stopped_needs_more_of_it(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=6), tmp_path / "run"
    settings = ("--head-learning-rate", "100", "--epochs", 30, "--patience", 1)
    visionadapt("train", "--data", data, "--out", run, *PROBE, *settings)
    done = len(lines(run))
    assert done < 30
    code, output = visionadapt("train", "--resume", run, "--epochs", 40)
    assert (code, output.count("\n")) == (2, 1)
    assert "--patience 1" in output
    assert visionadapt("train", "--resume", run, "--epochs", 32, "--patience", 40)[0] == 0
    assert len(lines(run)) == 32


@pytest.mark.parametrize(("best", "refused"), [(3, True), (4, False)])
def test_only_a_run_that_waited_for_its_patience_needs_more_of_it(tmp_path: Path, best: int, refused: bool) -> None:
    """One that has waited for one epoch of two was stopped since its averaged loss no longer fell."""
    (tmp_path / "summary.json").write_text(json.dumps({"stopped_after": None, "best_epoch": best}))
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(1, 6)))
    stored = {"head": "trained", "epochs": 15, "patience": 2}
    with pytest.raises(UsageError, match="--patience 2") if refused else nullcontext():
        check_further(tmp_path, stored, {"epochs": 60, "patience": 2})


def test_from_a_run_old_classes_keep_their_rows_and_adapters_start_as_trained(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    more = tinted_folder("more", classes=("algae", "blood", "grass"))
    assert visionadapt("train", "--data", data, "--out", run, *ADAPTED, "--epochs", 3)[0] == 0
    rates = ("--learning-rate", "1e-12", "--head-learning-rate", "1e-12", "--epochs", 1)
    code, output = visionadapt(
        "train", "--from", run, "--data", more, "--out", tmp_path / "new", *rates, "--workers", 0
    )
    assert code == 0, output
    old, new = va.load(run), va.load(tmp_path / "new")
    assert new.classes == ("algae", "blood", "grass")
    # the weights after an epoch that moved nothing: the run itself may save the solved head, if that is better
    state = read_tensors(tmp_path / "new" / "checkpoint.safetensors")[0]
    weights = {key.removeprefix("weights/"): tensor for key, tensor in state.items() if key.startswith("weights/")}
    load_trained_tensors(new.classifier, weights)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected, found = old.classifier(pixels), new.classifier(pixels)
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-4, rtol=1e-4)
    assert found[:, 0].abs().max() < 1e-4  # a new class starts at zero
    assert (tmp_path / "new" / "preprocess.json").read_text() == (run / "preprocess.json").read_text()
    (tmp_path / "new" / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", tmp_path / "new")
    assert code == 0, output
    # another classifier in the place of the one that it began with is noticed
    tensors, facts = read_tensors(run / "model.safetensors")
    write_tensors(run / "model.safetensors", {name: tensor * 1.5 for name, tensor in tensors.items()}, facts)
    (tmp_path / "new" / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", tmp_path / "new")
    assert code == 2
    assert str(run) in output


@pytest.mark.parametrize(
    "given", [("--backbone", "resnet18"), ("--adapter", "lora(rank=3)"), ("--resize", "squash"), ("--image-size", 96)]
)
def test_another_model_cannot_start_from_a_run(
    given: tuple[str, ...], visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=3), tmp_path / "run"
    visionadapt("train", "--data", data, "--out", run, *PROBE, "--epochs", 1)
    code, output = visionadapt("train", "--from", run, "--data", data, "--out", tmp_path / "new", *given)
    assert (code, output.count("\n")) == (2, 1), output
    assert given[0] in output and "--from" in output
    assert not (tmp_path / "new").exists()


def test_a_run_to_start_from_imports_no_code_that_it_names(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = tmp_path / "run", tinted_folder(count=3)
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').write_text('')\nAdapter = object\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    visionadapt("train", "--data", data, "--out", run, *PROBE, "--epochs", 1)
    tensors, facts = read_tensors(run / "model.safetensors")
    write_tensors(run / "model.safetensors", tensors, {**facts, "adapter": "trap:Adapter"})
    code, output = visionadapt("train", "--from", run, "--data", data, "--out", tmp_path / "new")
    assert (code, output.count("\n")) == (2, 1), output
    assert "import trap:Adapter" in output
    assert not (tmp_path / "sprung").exists()


def test_folds_validate_every_image_once_after_one_pass(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=6), tmp_path / "cv"
    code, output = visionadapt("train", "--data", data, "--out", out, *PROBE, "--epochs", 2, "--folds", 3)
    assert code == 0, output
    runs = [out / f"fold-{number}" for number in (1, 2, 3)]
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    assert [summary["prefix_forwards"] for summary in summaries] == [12, 0, 0]
    found = json.loads((out / "folds.json").read_text())
    values = [summary["val_accuracy"] for summary in summaries]
    assert found["metrics"]["val_accuracy"]["folds"] == values
    assert found["metrics"]["val_accuracy"]["mean"] == pytest.approx(sum(values) / 3)
    for number, (train, val) in enumerate(va.folds(sources.FolderSource(data), 3)):
        assert (summaries[number]["train_images"], summaries[number]["val_images"]) == (len(train), len(val))
    # what is missing is trained by --resume; a fold alone is the same run
    shutil.rmtree(runs[2])
    before = (runs[0] / "model.safetensors").read_bytes()
    code, output = visionadapt("train", "--resume", out)
    assert code == 0, output
    assert (runs[0] / "model.safetensors").read_bytes() == before
    assert json.loads((out / "folds.json").read_text())["metrics"]["val_accuracy"]["folds"] == values
    alone = tmp_path / "alone"
    assert visionadapt("train", "--data", data, "--out", alone, *PROBE, "--epochs", 2, "--fold", "2/3")[0] == 0
    assert (alone / "model.safetensors").read_bytes() == (runs[1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("given", [("--folds", 1), ("--fold", "6/5"), ("--fold", "2"), ("--folds", 3, "--fold", "1/3")])
def test_folds_that_cannot_be(given: tuple[str, ...], visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    code, output = visionadapt("train", "--data", tinted_folder(count=3), "--out", tmp_path / "cv", *PROBE, *given)
    assert (code, output.count("\n")) == (2, 1), output
    assert not (tmp_path / "cv").exists()
