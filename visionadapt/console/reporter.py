"""`Reporter`: prints progress and results to people on standard error, and JSON to programs on standard output."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from visionadapt.console.live import TrainingView
from visionadapt.errors import Terminated
from visionadapt.system import distributed, first_line
from visionadapt.system.text import terminal_safe, utf8_safe

if TYPE_CHECKING:
    from visionadapt.frozen.features import Progress as ProgressCallback
    from visionadapt.training.epochs import Epoch

HEARTBEAT_SECONDS = 30.0
"""Seconds between the lines about a long job, where nothing is redrawn."""


class Reporter:
    """Prints progress and results to standard error, and what other programs read to standard output.

    If several processes train together, only the first one prints. `quiet` prints only the result of a command, one
    line on standard output, if `result`; `json` prints events there, one JSON object per line.
    """

    def __init__(self, quiet: bool = False, json: bool = False, *, result: bool = True) -> None:
        first = distributed.is_first()
        self._console = Console(
            stderr=True, quiet=quiet or not first, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        self._answers, self._events = first and quiet and result and not json, first and json
        self._lines = first and not json
        self._tables, self._details = True, True

    @property
    def is_live(self) -> bool:
        """Whether standard error is a terminal that can redraw lines, and no JSON goes there."""
        mixed = self._events and sys.stdout.isatty()
        return sys.stderr.isatty() and self._console.is_interactive and not self._console.quiet and not mixed

    def announce_loading(self) -> None:
        """Say that PyTorch is about to be loaded, which takes seconds, unless it is loaded already."""
        if not first_line.keep() and "torch" not in sys.modules:
            self.say(first_line.LINE)

    def say(self, text: str) -> None:
        """Print a line; a terminal gets it with words kept whole, a file as it is."""
        self._console.print(terminal_safe(text), soft_wrap=not self._console.is_terminal)

    def answer(self, text: str) -> None:
        """Print the result of a command to standard output, if `quiet`."""
        if self._answers:
            self._answers = _write(utf8_safe(text))

    def line(self, text: str) -> None:
        """Print a line of a command's results to standard output, unless `json`."""
        if self._lines:
            sys.stdout.write(f"{terminal_safe(text, one_line=True)}\n")
            sys.stdout.flush()

    def detail(self, text: str) -> None:
        """Print a line, unless it repeats what another run of the same search has said."""
        if self._details:
            self.say(text)

    @contextmanager
    def without_answers(self, *, tables: bool = True, details: bool = True) -> Iterator[None]:
        """Print no results within the context, which are parts of another one; nor closing tables, nor details."""
        before = self._answers, self._tables, self._details
        self._answers, self._tables, self._details = False, tables, details
        try:
            yield
        finally:
            self._answers, self._tables, self._details = before

    @contextmanager
    def if_stopped(self, text: str, begun: Path | None = None) -> Iterator[None]:
        """Print a line if Ctrl-C or a signal ends what runs within the context, once the folder `begun` is there."""
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            if begun is None or begun.is_dir():
                self.say(text)
            raise

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Print a JSON object to standard output, if `json`; numbers that are not finite become null."""
        if self._events:
            self._events = _write(json.dumps(_finite({"event": name, **facts}), allow_nan=False))

    @contextmanager
    def progress(self, what: str, *, bar: bool = True) -> Iterator[ProgressCallback]:
        """Yield a function to call with (done, total): shows a bar in a terminal, or prints a line now and then.

        The bar is gone at the end: the caller says what came of it. While results go to standard output, there can be
        no `bar`.
        """
        if not self.is_live or not bar:
            yield _Heartbeat(self, what).beat
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True, redirect_stdout=not self._events) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, rows: bars.update(task, completed=done, total=rows)

    @contextmanager
    def training(
        self, planned: Mapping[str, str], epochs: int, past: Sequence[Mapping[str, Any]]
    ) -> Iterator[Follower]:
        """Yield a follower of a training run: a live view in a terminal, one line per epoch elsewhere.

        A live view shows the `planned` lines by name, and the metrics of the `past` epochs, completed before. Its table
        of epochs stays on screen.
        """
        if not self.is_live:
            yield Follower(self, done=len(past))
            return
        view = TrainingView({name: terminal_safe(value) for name, value in planned.items()}, epochs, past)
        try:
            with Live(view, console=self._console, transient=True, redirect_stdout=not self._events):
                yield Follower(self, view)
        finally:
            table = view.final()
            if table is not None:
                self._console.print(table, soft_wrap=False)

    def table(self, title: str, rows: Mapping[str, str]) -> None:
        """Print a closing table of two columns."""
        if not self._tables:
            return
        if not self._console.is_terminal:
            for name, value in rows.items():
                self.say(f"{name}: {value}")
            return
        table = Table(title=title, show_header=False)
        table.add_column(no_wrap=False)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(Text(terminal_safe(name)), Text(terminal_safe(value)))
        self._console.print(table, soft_wrap=False)


class _Heartbeat:
    """Prints how far a job is every half a minute, where nothing is redrawn."""

    def __init__(self, reporter: Reporter, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter, self._what, self._clock = reporter, what, clock
        self._told = clock()

    def beat(self, done: int, total: int) -> None:
        """Follow the progress."""
        if self._clock() - self._told >= HEARTBEAT_SECONDS and done < total:
            self._told = self._clock()
            self._reporter.say(f"{self._what}: {done} of {total}")


class Follower:
    """Follows a training run: updates a view, or prints a line per epoch if there is none, and prints events."""

    def __init__(self, reporter: Reporter, view: TrainingView | None = None, done: int = 0) -> None:
        self._reporter, self._view = reporter, view
        self._heartbeat = _Heartbeat(reporter, f"epoch {done + 1}, steps")

    def step(self, done: int, total: int) -> None:
        """Follow a step of an epoch."""
        (self._heartbeat.beat if self._view is None else self._view.step)(done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Follow the end of an epoch."""
        if self._view is None:
            self._reporter.say(str(epoch))
            self._heartbeat = _Heartbeat(self._reporter, f"epoch {epoch.epoch + 1}, steps")
        else:
            self._view.epoch(epoch.metrics(), epoch.best_epoch)
        self._reporter.event("epoch", {**epoch.metrics(), "best_epoch": epoch.best_epoch})


def _write(line: str) -> bool:
    """Write a line to standard output; return False if the reader has gone, which does not end the command."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
        return False
    return True


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
