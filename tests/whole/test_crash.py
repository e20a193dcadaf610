"""A run that is killed at any moment and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from ..conftest import SMALL_BACKBONE
from ..forked import Command

Make = Callable[..., Path]
SETTINGS = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--batch-size", "4", "--epochs", "4"),
    *("--adapter", "bottleneck(rank=4, blocks=last:3, dropout=0.1)", "--augment", "light", "--views", "2"),
    *("--patience", "0", "--seed", "3"),
)


def settings_for(epochs: int) -> tuple[str, ...]:
    """`SETTINGS` with another number of epochs."""
    return tuple(str(epochs) if before == "--epochs" else word for before, word in pairwise(("", *SETTINGS)))


def start(*arguments: str, cache: Path) -> Command:
    environment = {**os.environ, "VISIONADAPT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return Command("visionadapt.train", arguments, environment, together=True)


def finish(process: Command) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def kill_when(process: Command, moment: Callable[[], bool]) -> bool:
    """Kill a process as soon as `moment` is true; return whether it still ran then."""
    while process.poll() is None and not moment():
        time.sleep(0.0005)
    ran = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return ran


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def moments(run: Path, cache: Path) -> dict[str, Callable[[], bool]]:
    """Moments of a run that can be seen from outside."""
    return {
        "the run folder is there": lambda: (run / "config.json").exists(),
        "the cache is half filled": lambda: any(path.stat().st_size >= 32 for path in cache.glob("*/ids.bin")),
        "the rows are settled": lambda: (run / "ledger.parquet").exists(),
        "a checkpoint is being written": lambda: (run / "metrics.jsonl").exists() and any(run.glob(".writing-*")),
        "the third epoch is over": lambda: epochs(run) >= 3,
        "the model is being saved": lambda: (run / "golden.safetensors").exists(),
    }


def epochs(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_killed_and_resumed_runs_give_the_same_bits(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=16)
    (data / "blood" / "broken.png").write_bytes(b"\x89PNG no picture")
    whole = tmp_path / "whole"
    finish(start("--data", str(data), "--out", str(whole), "--workers", "0", *SETTINGS, cache=tmp_path / "warm"))
    for number, name in enumerate(moments(whole, tmp_path)):
        run, cache = tmp_path / f"run{number}", tmp_path / ("warm" if number == 2 else f"cache{number}")
        workers = str(2 * (number % 2))
        process = start("--data", str(data), "--out", str(run), "--workers", workers, *SETTINGS, cache=cache)
        assert kill_when(process, moments(run, cache)[name]), f"the run was over before {name}"
        finish(start("--resume", str(run), "--workers", str(2 - int(workers)), cache=cache))
        assert digest(run) == digest(whole), name
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_bits(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=16)
    cache = tmp_path / "cache"
    started = time.monotonic()
    finish(start("--data", str(data), "--out", str(tmp_path / "whole"), *SETTINGS, cache=tmp_path / "other"))
    length = time.monotonic() - started
    generator = random.Random(0)
    run = tmp_path / "run"
    for _ in range(4):
        fresh = ("--resume", str(run)) if run.exists() else ("--data", str(data), "--out", str(run), *SETTINGS)
        end = time.monotonic() + length * generator.uniform(0.5, 0.95)
        kill_when(start(*fresh, cache=cache), lambda end=end: time.monotonic() > end)
    rest = ("--resume", str(run)) if run.exists() else ("--data", str(data), "--out", str(run), *SETTINGS)
    finish(start(*rest, cache=cache))
    assert digest(run) == digest(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_so_and_can_go_on(tinted_folder: Make, tmp_path: Path, number: int, code: int) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    settings = settings_for(400)
    process = start("--data", str(tinted_folder()), "--out", str(run), *settings, cache=cache)
    while process.poll() is None and epochs(run) < 2:
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"--resume {run}" in output
    assert "Traceback" not in output
    assert (run / "checkpoint.safetensors").exists()
