"""`NotebookReporter`: a training run in a notebook, as one output that is updated."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from visionadapt.console.reporter import Follower, Reporter
from visionadapt.html import notebook

if TYPE_CHECKING:
    from visionadapt.frozen.features import Progress
    from visionadapt.training.epochs import Epoch

_SECONDS_BETWEEN = 0.2


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class NotebookReporter(Reporter):
    """Shows lines, the table of epochs and how far the work is, in one output of the running cell."""

    def __init__(self) -> None:
        super().__init__(quiet=True, result=False)
        self._shown: Any = None
        self._above: list[str] = []
        self._epochs: list[Epoch] = []
        self._below: list[str] = []
        self._doing, self._drawn = "", 0.0

    def say(self, text: str) -> None:
        """Add a line."""
        (self._below if self._epochs else self._above).append(notebook.line(text))
        self._draw()

    def table(self, title: str, rows: Mapping[str, str]) -> None:
        """Add a closing table of two columns."""
        self._below.append(notebook.table(title, rows.items()))
        self._draw()

    @contextmanager
    def progress(self, what: str, *, bar: bool = True) -> Iterator[Progress]:
        """Yield a function to call with (done, total), which shows both."""
        yield lambda done, total: self._do(f"{what}: {done:,} of {total:,}")
        self._do("", always=True)

    @contextmanager
    def training(
        self, planned: Mapping[str, str], epochs: int, past: Sequence[Mapping[str, Any]]
    ) -> Iterator[Follower]:
        """Yield a follower of a training run, which adds a row to the table after each epoch."""
        yield _NotebookFollower(self)
        self._do("", always=True)

    def add_epoch(self, epoch: Epoch) -> None:
        """Add a row to the table of epochs."""
        self._epochs.append(epoch)
        self._do("", always=True)

    def do_steps(self, done: int, total: int) -> None:
        """Show the steps of the present epoch."""
        self._do(f"epoch {len(self._epochs) + 1}, steps: {done:,} of {total:,}")

    def _do(self, what: str, always: bool = False) -> None:
        self._doing = what
        if always or time.monotonic() - self._drawn > _SECONDS_BETWEEN:
            self._draw()

    def _draw(self) -> None:
        ipython = import_module("IPython.display")
        lines = [epoch.metrics() for epoch in self._epochs]
        table = [notebook.epochs_table(lines, self._epochs[-1].best_epoch)] if lines else []
        doing = [notebook.line(self._doing)] if self._doing else []
        page = ipython.HTML("".join([*self._above, *table, *self._below, *doing]))
        self._drawn = time.monotonic()
        if self._shown is None:
            self._shown = ipython.display(page, display_id=True)
        else:
            self._shown.update(page)


class _NotebookFollower(Follower):
    """Follows a training run in a notebook."""

    def __init__(self, reporter: NotebookReporter) -> None:
        super().__init__(reporter)
        self._notebook = reporter

    def step(self, done: int, total: int) -> None:
        """Follow a step of an epoch."""
        self._notebook.do_steps(done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Follow the end of an epoch."""
        self._notebook.add_epoch(epoch)
