"""Adapters that cannot catch up with the solved head are stopped, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import visionadapt as va
from tests.conftest import SMALL_BACKBONE
from visionadapt.runs.folder import read_json, read_metrics
from visionadapt.runs.tensors import read_tensors, write_tensors
from visionadapt.training.early_stopping import cannot_catch_up, no_longer_falls

Command = Callable[..., tuple[int, str]]

ADAPTED = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--precision", "float32"),
    *("--device", "cpu", "--workers", "0", "--adapter", "bottleneck(rank=2, blocks=last:1)"),
)


def ruined(epochs: int = 12) -> tuple[str, ...]:
    """Options of a training that gets worse with every step."""
    rates = ("--learning-rate", "1", "--head-learning-rate", "30")
    return (*ADAPTED, "--epochs", str(epochs), *rates)


@pytest.mark.parametrize(
    ("done", "epochs", "high", "stops"),
    [
        (8, 20, -0.31, True),
        (8, 20, -0.29, False),
        (7, 20, -0.9, False),
        (11, 20, -0.29, False),
        (12, 20, -0.13, True),
        (16, 20, -0.06, True),
        (16, 20, -0.04, False),
        (4, 5, -0.9, False),  # too few epochs to judge, whatever their share
        (5, 6, -0.9, True),
        (20, 20, 0.01, False),
    ],
)
def test_how_far_behind_is_too_far(done: int, epochs: int, high: float, stops: bool) -> None:
    assert cannot_catch_up(done, epochs, (high - 0.1, high - 0.2, high)) is stops


@pytest.mark.slow
def test_ruined_adapters_are_stopped_and_the_solved_head_is_kept(
    visionadapt: Command, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = tinted_folder(count=60)
    short, long = tmp_path / "short", tmp_path / "long"
    assert visionadapt("train", "--data", data, "--out", long, *ruined(), "--no-early-stopping")[0] == 0
    code, output = visionadapt("train", "--data", data, "--out", short, *ruined())
    assert code == 0
    assert "--no-early-stopping" in output
    assert (
        "--no-early-stopping" in (long / "report.html").read_text()
        and "early-stopping False" not in (long / "report.html").read_text()
    )
    assert len(read_metrics(long)) == 12
    assert 5 <= len(read_metrics(short)) < 12
    assert (short / "model.safetensors").read_bytes() == (long / "model.safetensors").read_bytes()
    assert read_json(short, "summary.json")["val_accuracy"] == read_json(short, "summary.json")["probe_accuracy"]
    assert "finished already" in visionadapt("train", "--resume", short)[1]
    code, output = visionadapt("train", "--resume", short, "--epochs", 14)
    assert (code, output.count("\n")) == (2, 1)
    assert "--no-early-stopping" in output


@pytest.mark.slow
def test_the_last_epoch_stops_nothing_and_a_run_can_go_on(
    visionadapt: Command, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", tinted_folder(count=60), "--out", run, *ruined(5))
    assert code == 0 and "--no-early-stopping" not in output
    assert visionadapt("train", "--resume", run, "--epochs", "7")[0] == 0
    assert len(read_metrics(run)) > 5


@pytest.mark.slow
def test_a_run_that_began_before_there_was_early_stopping_goes_on(
    visionadapt: Command, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    data = tinted_folder(count=60)
    assert visionadapt("train", "--data", data, "--out", run, *ruined(4), "--max-minutes", "0.00001")[0] == 0
    config = read_json(run, "config.json")
    del config["settings"]["early_stopping"]
    (run / "config.json").write_text(json.dumps(config))
    tensors, facts = read_tensors(run / "checkpoint.safetensors")
    del facts["settings"]["early_stopping"], facts["scores"], facts["hopeless"]
    write_tensors(run / "checkpoint.safetensors", tensors, facts)
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert len(read_metrics(run)) == 4
    assert visionadapt("train", "--resume", run, "--epochs", "9")[0] == 0
    assert len(read_metrics(run)) == 9, "that version stopped nothing"


@pytest.mark.slow
def test_a_stopped_run_that_was_interrupted_before_its_end_trains_no_further(
    tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    rows = va.sources.FolderSource(tinted_folder(count=60))
    train, val = va.split(rows, val=0.4)
    model = va.classifier(SMALL_BACKBONE, train.classes, "bottleneck(rank=2, blocks=last:1)", "none", 32)
    prepare = va.preprocessing_for(model)
    given = {"epochs": 12, "learning_rate": 1.0, "head_learning_rate": 30.0, "workers": 0, "device": "cpu"}
    epochs = list(va.fit(model, train, val, prepare, cache=tmp_path, **given))
    assert 5 <= len(epochs) < 12
    assert epochs[-1].state.facts["hopeless"] is True
    assert epochs[-2].state.facts["hopeless"] is False
    assert [len(epoch.state.facts["scores"]) for epoch in epochs] == list(range(1, len(epochs) + 1))


@pytest.mark.parametrize(
    ("losses", "epochs", "flat"),
    [
        ([1.0] * 20, 60, True),
        ([1.0] * 19, 60, False),  # not a third of the epochs
        ([2.0 - 0.1 * number for number in range(15)], 20, False),  # it falls to the end
        ([1.0, *[0.5] * 18, 0.47], 60, False),  # by 6 %
        ([1.0, *[0.5] * 18, 0.48], 60, True),  # by 4 %
        ([1.0, *[0.5] * 13, 0.3, *[0.5] * 5], 60, False),  # within the latest tenth
        ([1.0, *[0.5] * 12, 0.3, *[0.5] * 6], 60, True),  # before it
        ([0.5] * 5, 5, False),  # too few epochs to judge, whatever their share
        ([0.5] * 6, 6, True),
        ([0.5, *[float("nan")] * 20], 60, True),
    ],
)
def test_a_loss_that_no_longer_falls(losses: list[float], epochs: int, flat: bool) -> None:
    assert no_longer_falls(losses, epochs) is flat


@pytest.mark.slow
def test_averaged_weights_whose_loss_is_flat_are_trained_no_further(
    visionadapt: Command, tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = tinted_folder(count=30)
    short, long = tmp_path / "short", tmp_path / "long"
    given = ("train", "--data", data, *ADAPTED, "--epochs", "40", "--ema-decay", "0.9")
    assert visionadapt(*given, "--out", long, "--no-early-stopping")[0] == 0
    code, output = visionadapt(*given, "--out", short)
    assert code == 0 and "--no-early-stopping" in output
    done = read_metrics(short)
    assert 40 / 3 <= len(done) < 40 == len(read_metrics(long))
    assert [line["val_loss"] for line in done] == [line["val_loss"] for line in read_metrics(long)][: len(done)]
    assert "finished already" in visionadapt("train", "--resume", short)[1]
    # with more epochs it goes on, since a third of these is not done yet
    assert visionadapt("train", "--resume", short, "--epochs", "90")[0] == 0
    assert 30 <= len(read_metrics(short)) <= 90


def test_adapters_that_are_still_worse_than_the_solved_head_get_all_epochs(
    tinted_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionadapt.training.trainer.cannot_catch_up", lambda *given: False)
    monkeypatch.setattr("visionadapt.training.epochs.Best.accepts", lambda *given: False)
    train, val = va.split(va.sources.FolderSource(tinted_folder(count=8)), val=0.5)
    model = va.classifier(SMALL_BACKBONE, train.classes, "bottleneck(rank=2, blocks=last:1)", "none", 32)
    given = {"epochs": 12, "learning_rate": 1e-9, "head_learning_rate": 1e-9, "workers": 0, "ema_decay": 0.9}
    epochs = list(va.fit(model, train, val, va.preprocessing_for(model), cache=tmp_path, device="cpu", **given))
    losses = [epoch.val_loss for epoch in epochs]
    assert max(losses) - min(losses) < 0.01 and epochs[-1].best_epoch == 0
    assert len(epochs) == 12
