"""Run commands in processes of their own that need not import PyTorch: forks of a server that has imported everything.

`python -m visionadapt.train` imports for several seconds before it begins. Here a server process does so once. Each
command is a fork of it, in which the command's module runs as the main one, with an environment and output of its own.
The server itself is a fresh interpreter, so that nothing of the tests is in it. What a fresh process does is tested in
tests/commands/test_entry_points.py.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from visionadapt.export import verify

_IMPORTED = (
    "visionadapt.commands.training_run",
    "visionadapt.commands.searching",
    "visionadapt.runs.saved",
    "visionadapt.prediction.bulk",
    "visionadapt.evaluation.validation",
    "visionadapt.report.page",
    "visionadapt.html.pages",
    "jinja2",
    "torch.distributed",
    "tests.forked",
    "tests.preloaded",
)
"""Modules that the server imports; none of them is a command's own, which runs as the main one."""

_WAITS = 120.0


def preload() -> None:
    """Say what the server imports; it starts with the first process of `forkserver` that any test starts."""
    multiprocessing.set_forkserver_preload([*_IMPORTED])


class Command:
    """`python -m visionadapt.COMMAND …` as a fork, with the methods of a process that `subprocess` has started.

    Args:
        module: what runs, such as `visionadapt.train`, or the path of a script.
        words: its arguments.
        environment: all of its environment; by default that of this process.
        folder: where it starts; by default that of this process.
        together: whether standard error is part of standard output.
    """

    stdin = stdout = stderr = None
    """It has no pipes, which the manager of a notebook's kernel would close."""

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        folder: str | Path | None = None,
        together: bool = False,
    ) -> None:
        self.args = (module, *words)
        self._folder = tempfile.TemporaryDirectory()
        self.outputs = [Path(self._folder.name) / name for name in ("stdout", "stdout" if together else "stderr")]
        ignored = [number for number in (signal.SIGHUP,) if signal.getsignal(number) is signal.SIG_IGN]
        given = dict(os.environ if environment is None else environment)
        context = multiprocessing.get_context("forkserver")
        place = str(folder or Path.cwd())
        arguments = (module, list(words), given, place, [str(path) for path in self.outputs], ignored)
        self._process: ForkServerProcess = context.Process(target=_become, args=arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._process.start()
        self.pid = self._process.pid or 0
        atexit.register(self.kill)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait, and return the exit code."""
        self._process.join(_WAITS if timeout is None else timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or _WAITS)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait, and return all that it has printed to standard output and to standard error."""
        self.wait(timeout)
        output, errors = (path.read_text(errors="replace") if path.exists() else "" for path in self.outputs)
        return output, errors if self.outputs[0] != self.outputs[1] else ""

    def first_line(self) -> str:
        """Wait for the first line of standard output; return it, or nothing if it ends without one."""
        while True:
            ended = self.returncode is not None
            text = self.outputs[0].read_text() if self.outputs[0].exists() else ""
            if "\n" in text or ended:
                return text.partition("\n")[0]
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    module: str, *words: str, environment: Mapping[str, str] | None = None, timeout: float = _WAITS
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does with captured text."""
    command = Command(module, words, environment)
    try:
        output, errors = command.communicate(timeout)
    finally:
        command.kill()
    return subprocess.CompletedProcess(command.args, command.wait(), output, errors)


def run_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `verify` run the example of an export in a fork: it imports PyTorch for longer than it works."""

    def run_script(command: Sequence[str], *, timeout: float, **settings: bool) -> subprocess.CompletedProcess[str]:
        done = run(*command[command.index("-I") + 1 :], timeout=timeout)
        done.check_returncode()
        return done

    errors = {"CalledProcessError": subprocess.CalledProcessError, "TimeoutExpired": subprocess.TimeoutExpired}
    monkeypatch.setattr(verify, "subprocess", SimpleNamespace(run=run_script, **errors))


def run_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels of notebooks be forks."""
    from jupyter_client.provisioning import local_provisioner

    def launch(command: Sequence[str], *, env: Mapping[str, str], cwd: str, **settings: Any) -> Command:
        kernel = Command("tests.kernel", command[command.index("-m") + 2 :], env, folder=cwd)
        while os.getpgid(kernel.pid) != kernel.pid:  # signals to a kernel go to its group
            time.sleep(0.01)
        return kernel

    monkeypatch.setattr(local_provisioner, "launch_kernel", launch)


def _usual_start_method() -> str:
    """How a process starts others that was not told how."""
    return multiprocessing.get_all_start_methods()[0]


def _become(
    module: str, words: list[str], environment: dict[str, str], folder: str, outputs: list[str], ignored: list[int]
) -> None:
    """Run a module as `python -m` does, in this process."""
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    warnings._processoptions([text for text in environment.get("PYTHONWARNINGS", "").split(",") if text])  # type: ignore[attr-defined]
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    multiprocessing.set_start_method(_usual_start_method(), force=True)  # a process of the server has the server's
    sys.modules.pop(module, None)
    sys.argv = [module, *words]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
