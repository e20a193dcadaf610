"""A candidate ends when its time is over, wherever it is: with its best epoch, or with none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

import visionadapt as va
from visionadapt.commands import keeping, training_run
from visionadapt.commands.run import Fitting, Run, TimeOverError
from visionadapt.commands.training_run import train_within
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.folder import read_metrics
from visionadapt.runs.options import RunOptions
from visionadapt.training.trainer import Trainer

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
QUIET = Reporter(quiet=True, result=False)
SETTINGS = TrainingSettings(epochs=50, batch_size=2, workers=0, early_stopping=False)


@pytest.fixture
def options(tinted_folder: Make, tmp_path: Path) -> RunOptions:
    """A run of many steps."""
    small = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 32, "adapter": "bottleneck(rank=2)"}
    return RunOptions(data=str(tinted_folder(count=6)), out=str(tmp_path / "run"), **small)


@pytest.mark.slow
def test_without_time_for_an_epoch_nothing_is_begun(options: RunOptions, tmp_path: Path) -> None:
    for fitting in (None, Fitting()):
        with pytest.raises(TimeOverError):
            train_within(dataclasses.replace(options, max_minutes=1e-6), SETTINGS, QUIET, fitting=fitting)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("images", "epochs"), [(30, 3), (31, 6)])
def test_a_share_of_the_time_is_taken_where_the_epochs_have_enough_images_even_so(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, images: int, epochs: int
) -> None:
    """Ten images to train on; there is time for six epochs, in half of it for three, which have 30 images in all."""
    monkeypatch.setattr(Run, "seconds_left", lambda self: 63.2)
    monkeypatch.setattr(training_run, "epochs_in_time", lambda expected, seconds, most: min(round(seconds / 10), most))
    monkeypatch.setattr(training_run, "IMAGES", images)
    run = train_within(options, SETTINGS, QUIET, fitting=Fitting(share=0.5))
    assert json.loads((run / "summary.json").read_text())["train_images"] == 10
    assert json.loads((run / "config.json").read_text())["settings"]["epochs"] == epochs


@pytest.mark.slow
def test_in_the_middle_of_an_epoch_the_best_of_those_before_is_taken(
    options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is over with the first step of the third epoch."""
    step, done = Trainer._step, []

    def followed(self: Trainer, rows: Sequence[int], factor: float) -> Tensor:
        done.append(self.done)
        return step(self, rows, factor)

    monkeypatch.setattr(Trainer, "_step", followed)
    monkeypatch.setattr(Run, "seconds_left", lambda self: -1.0 if done[-1:] == [2] else 1e9)
    run = train_within(options, SETTINGS, QUIET)
    assert done.count(0) == done.count(1) > 1 == done.count(2)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped_after"] == 2 >= summary["best_epoch"]
    ended = va.load(run)
    assert ended.golden_difference() < 1e-5
    # as the same run ends that is stopped between two epochs
    monkeypatch.setattr(Run, "seconds_left", lambda self: -1.0 if len(read_metrics(self.folder)) == 2 else 1e9)
    other = train_within(dataclasses.replace(options, out=f"{run}-2"), SETTINGS, QUIET)
    assert (other / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_an_epoch_that_would_take_too_long_is_not_begun(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_next_epoch", lambda run, train, lines: 1e9 if len(lines) == 3 else 0.0)
    run = train_within(dataclasses.replace(options, max_minutes=60), SETTINGS, QUIET)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped_after"] == 3 and (run / "report.html").exists()
