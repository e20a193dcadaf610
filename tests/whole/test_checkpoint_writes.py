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
from torch.multiprocessing import start_processes

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


def kill_before_every_line(rank: int, run: Path) -> None:
    for number in range(1, 4):
        write(run, number)
    epoch = 3
    for line in range(1, 100):
        code = in_a_child(partial(killed_at, line, partial(write, run, epoch + 1)))
        found = check(run)
        assert found in {epoch, epoch + 1}
        epoch = found
        if code == DONE:
            break
    assert code == DONE and line > 25


def run_out_of_space_after_every_few_bytes(rank: int, run: Path) -> None:
    for number in range(1, 3):
        write(run, number)
    size = (run / "checkpoint.safetensors").stat().st_size

    def limited(most: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        write(run, 3)

    for most in range(0, size, size // 8):
        assert in_a_child(partial(limited, most)) == REFUSED
        assert check(run) == 2
    assert in_a_child(partial(limited, size + 100)) == DONE
    assert check(run) == 3


@pytest.mark.parametrize("checks", [kill_before_every_line, run_out_of_space_after_every_few_bytes])
def test_a_loadable_checkpoint_is_left(checks: Callable[[int, Path], None], tmp_path: Path) -> None:
    """In a small process, whose many forks take less time than those of the tests' own."""
    start_processes(checks, (tmp_path,), nprocs=1, start_method="forkserver")
