"""The live view of a training run in a terminal: the plan, the latest epochs, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from visionadapt.metrics.words import value_of, words

_OTHER_LINES = 8
_MOST_EPOCHS = 12
_MOST_AT_THE_END = 24
_MOST_METRICS = 2

Clock = Callable[[], float]


class TrainingView:
    """The view that rich redraws several times a second; `step` and `epoch` update it.

    It shows `planned` lines by name, and continues the metrics of the epochs completed before.
    """

    def __init__(
        self,
        planned: Mapping[str, str],
        epochs: int,
        past: Sequence[Mapping[str, Any]] = (),
        clock: Clock = time.monotonic,
    ) -> None:
        self.planned, self.epochs, self.past, self.clock = planned, epochs, list(past), clock
        self.best = 0
        self._first, self._started, self._share = len(self.past), clock(), 0.0

    def step(self, done: int, total: int) -> None:
        """Record that `done` of an epoch's `total` steps are done."""
        self._share = done / total

    def epoch(self, metrics: Mapping[str, Any], best: int) -> None:
        """Record the metrics of a completed epoch, and that `best` is the best one so far."""
        self.past.append(metrics)
        self.best, self._share = best, 0.0

    def seconds_left(self) -> float | None:
        """Return the remaining seconds at the pace so far; None before the first step."""
        done = len(self.past) - self._first + self._share
        if done <= 0:
            return None
        return (self.clock() - self._started) / done * (self.epochs - self._first - done)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw at most as many lines as the terminal has."""
        room = max(1, console.height - _OTHER_LINES - len(self.planned))
        for name, value in self.planned.items():
            yield Text.assemble((f"{name}: ", "bold"), value, no_wrap=True, overflow="ellipsis")
        if self.past:
            yield self._table(self.past[-min(room, _MOST_EPOCHS) :], speed=True)
        yield self._bar()

    def final(self) -> Table | None:
        """Return the table that stays on screen: the last epochs, and the one that is kept; None before the first."""
        shown = self.past[-_MOST_AT_THE_END:]
        kept = [line for line in self.past if line["epoch"] == self.best and line not in shown]
        return self._table([*kept, *shown], speed=False) if shown else None

    def _table(self, shown: Sequence[Mapping[str, Any]], speed: bool) -> Table:
        names = [name for name in shown[0] if name.startswith("val_") and name != "val_loss"][:_MOST_METRICS]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("epoch", "train loss", "val loss", *map(words, names), *(["images/s"] if speed else [])):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for line in shown:
            values = (value_of(name, line[name]) for name in ("train_loss", "val_loss", *names))
            pace = [f"{line['images_per_second']:.0f}"] if speed else []
            table.add_row(str(line["epoch"]), *values, *pace, "← kept" if line["epoch"] == self.best else "")
        return table

    def _bar(self) -> Table:
        done, left = len(self.past), self.seconds_left()
        line = Table.grid(padding=(0, 1))
        line.add_row(
            f"epoch {min(done + 1, self.epochs)}/{self.epochs}",
            ProgressBar(total=self.epochs, completed=done + self._share, width=30),
            "" if left is None else f"{duration(left)} left",
        )
        return line


def duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    >>> duration(75), duration(3661)
    ('1:15', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
