"""What a run took counts in all processes that it was trained in, and in no other run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from visionadapt.commands.clock import FILE, Clock, spent

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SETTINGS = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", 32, "--workers", 0, "--batch-size", 4),
    *("--adapter", "bottleneck(rank=2, blocks=last:1)", "--epochs", 3, "--patience", 0, "--precision", "float32"),
)
STOP = ("--max-minutes", 0.00001)


@pytest.mark.slow
@pytest.mark.parametrize("go_on", [("finish",), ("train", "--resume")])
def test_a_stopped_run_goes_on_with_what_it_took_before(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, go_on: tuple[str, ...]
) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SETTINGS, *STOP)[0] == 0
    taken = json.loads((run / FILE).read_text())
    assert taken["seconds"]["train"] > 0 and taken["peak_bytes"] > 2**20
    taken["seconds"]["train"] += 1000
    taken["peak_bytes"] = 2**60
    (run / FILE).write_text(json.dumps(taken))
    code, output = visionadapt(*go_on, run)
    assert code == 0, output
    summary = json.loads((run / "summary.json").read_text())
    assert 1000 < summary["seconds"]["train"] < 1100
    assert summary["seconds"]["prepare"] > taken["seconds"]["prepare"]
    assert summary["peak_bytes"] == 2**60
    assert not (run / FILE).exists()
    # and with more epochs, or after it was finished
    assert visionadapt("train", "--resume", run, "--epochs", 4)[0] == 0
    again = json.loads((run / "summary.json").read_text())["seconds"]
    assert all(again[name] > summary["seconds"][name] for name in summary["seconds"])
    # another run in its place begins at 0
    assert visionadapt("train", "--data", data, "--out", run, "--overwrite", *SETTINGS)[0] == 0
    assert json.loads((run / "summary.json").read_text())["seconds"]["train"] < 1000


def test_a_phase_that_is_killed_counts_until_it_was_noted(tmp_path: Path) -> None:
    clock = Clock()
    with clock.phase("train"):
        clock.keep_in(tmp_path)
        time.sleep(0.02)
        clock.note()
        assert spent(tmp_path)[0]["train"] >= 0.02
    with pytest.raises(KeyboardInterrupt), clock.phase("save"):
        time.sleep(0.01)
        raise KeyboardInterrupt
    assert spent(tmp_path)[0]["save"] >= 0.01


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": 3}', '{"seconds": {"train": -1}, "peak_bytes": "much"}'])
def test_what_is_damaged_counts_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert spent(tmp_path) == ({}, 0)
