"""A run that is stopped by a signal or by the time says how it goes on; two processes never share a run folder."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from visionadapt.errors import RunError
from visionadapt.runs.tensors import CHECKPOINTS
from visionadapt.system.locks import FolderLocks

from ..forked import Command
from .test_crash import SETTINGS, epochs, finish, settings_for, start

Make = Callable[..., Path]
LONG = settings_for(100_000)


def begun(run: Path, data: Path, cache: Path, *more: str) -> Command:
    """A run of many epochs, of which two are over."""
    process = start("--data", str(data), "--out", str(run), *LONG, *more, cache=cache)
    while process.poll() is None and epochs(run) < 2:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_a_warning_of_a_batch_system_stops_a_run_that_can_go_on(
    tinted_folder: Make, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = begun(run, tinted_folder(), tmp_path / "cache", "--workers", "1" if number == signal.SIGUSR1 else "0")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"--resume {run}" in output and number.name in output
    assert "Traceback" not in output
    assert any((run / name).exists() for name in CHECKPOINTS)  # the older one, where it came between two renamings
    assert not (run / ".lock").exists()


@pytest.mark.slow
def test_an_ignored_hang_up_stops_nothing(tinted_folder: Make, tmp_path: Path) -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = begun(tmp_path / "run", tinted_folder(), tmp_path / "cache")
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    done = epochs(tmp_path / "run")
    while process.poll() is None and epochs(tmp_path / "run") < done + 2:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.slow
def test_a_second_interrupt_leaves_at_once(tinted_folder: Make, tmp_path: Path) -> None:
    process = begun(tmp_path / "run", tinted_folder(), tmp_path / "cache")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_a_run_whose_time_is_over_stops_after_an_epoch_and_goes_on(tinted_folder: Make, tmp_path: Path) -> None:
    data, run, cache = tinted_folder(count=12), tmp_path / "run", tmp_path / "cache"
    output = finish(start("--data", str(data), "--out", str(run), *SETTINGS, "--max-minutes", "0.0001", cache=cache))
    assert f"--resume {run}" in output
    assert epochs(run) == 1 and not (run / "summary.json").exists()
    assert "0.0001" not in (run / "config.json").read_text()
    finish(start("--resume", str(run), cache=cache))
    assert epochs(run) == 4
    whole = tmp_path / "whole"
    finish(start("--data", str(data), "--out", str(whole), *SETTINGS, "--max-minutes", "60", cache=cache))
    first, second = ((folder / "metrics.jsonl").read_text().splitlines() for folder in (run, whole))
    assert [json.loads(line)["val_loss"] for line in first] == [json.loads(line)["val_loss"] for line in second]


@pytest.mark.slow
def test_a_run_folder_belongs_to_one_process(tinted_folder: Make, tmp_path: Path) -> None:
    data, run, cache = tinted_folder(), tmp_path / "run", tmp_path / "cache"
    process = begun(run, data, cache)
    try:
        for words in (("--resume", str(run)), ("--data", str(data), "--out", str(run), "--overwrite", *SETTINGS)):
            other = start(*words, cache=cache)
            output, _ = other.communicate(timeout=60)
            assert other.returncode == 2, output
            assert str(run) in output and str(process.pid) in output and "Traceback" not in output
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    finish(start("--data", str(data), "--out", str(run), "--overwrite", *SETTINGS, cache=cache))
    assert epochs(run) == 4


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    first, second = FolderLocks(), FolderLocks()
    first.take(tmp_path)
    first.take(tmp_path)
    with pytest.raises(RunError, match=str(tmp_path)):
        second.take(tmp_path)
    first.release()
    assert not any(tmp_path.iterdir())
    with second:
        second.take(tmp_path)
    first.take(tmp_path)
    first.release()
