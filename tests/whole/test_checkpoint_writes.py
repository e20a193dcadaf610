"""A process that is killed, or finds no space left, anywhere in the writing of a checkpoint leaves a loadable one."""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from visionadapt.errors import RunError
from visionadapt.runs.folder import write_metrics
from visionadapt.runs.tensors import read_checkpoint, write_checkpoint
from visionadapt.system.storage import remove_unfinished
from visionadapt.training.epochs import TrainingState

pytestmark = pytest.mark.slow

FIXED = {"learning_rate": 0.1}
KILLED, DONE, REFUSED = 9, 0, 3


def write(run: Path, epoch: int) -> None:
    """Write what a run keeps of an epoch."""
    write_metrics(run, [{"epoch": number} for number in range(1, epoch + 1)])
    facts = {"epoch": epoch, "best_epoch": 1}
    write_checkpoint(run, TrainingState({"weights/a": torch.full((200,), 1.0 * epoch)}, facts), FIXED)


def in_a_child(work: Callable[[], None]) -> int:
    """Run some work in a forked process; return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, none of which holds a lock here
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = DONE
        except RunError:
            code = REFUSED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(line: int, work: Callable[[], None]) -> None:
    """Run some work, and end at once before the `line`-th line of the code that writes files."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith("storage.py") and frame.f_code.co_name != "write_checkpoint":
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os._exit(KILLED)
        return trace

    sys.settrace(trace)
    work()


def check(run: Path) -> int:
    """Return the epoch of the checkpoint that a resumed run finds: the last whole one."""
    remove_unfinished(run)
    said: list[str] = []
    state = read_checkpoint(run, FIXED, said.append)
    assert state is not None and not said
    epoch: int = state.facts["epoch"]
    assert torch.equal(state.tensors["weights/a"], torch.full((200,), 1.0 * epoch))
    assert not list(run.glob(".writing-*"))
    return epoch


def test_killed_before_every_line(tmp_path: Path) -> None:
    for number in range(1, 4):
        write(tmp_path, number)
    epoch = 3
    for line in range(1, 100):
        code = in_a_child(partial(killed_at, line, partial(write, tmp_path, epoch + 1)))
        found = check(tmp_path)
        assert found in {epoch, epoch + 1}
        epoch = found
        if code == DONE:
            break
    assert code == DONE and line > 25


def test_no_space_after_every_few_bytes(tmp_path: Path) -> None:
    for number in range(1, 3):
        write(tmp_path, number)
    size = (tmp_path / "checkpoint.safetensors").stat().st_size

    def limited(most: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        write(tmp_path, 3)

    for most in range(0, size, size // 8):
        assert in_a_child(partial(limited, most)) == REFUSED
        assert check(tmp_path) == 2
    assert in_a_child(partial(limited, size + 100)) == DONE
    assert check(tmp_path) == 3
