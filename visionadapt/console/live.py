"""The view of a training that goes on, for a terminal: what was planned, the latest epochs, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from visionadapt.training.epochs import words

_OTHER_LINES = 8
_MOST_EPOCHS = 12
_MOST_FIGURES = 2

Clock = Callable[[], float]


class TrainingView:
    """What rich draws anew several times a second; `step` and `epoch` tell it how far training is.

    Args:
        planned: what was decided, by name.
        epochs: how many there are to be.
        past: the metrics of the epochs that are over already.
        clock: seconds from any start.
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
        """So many of an epoch's steps are done."""
        self._share = done / total

    def epoch(self, metrics: Mapping[str, Any], best: int) -> None:
        """An epoch is over, and `best` is the best one so far."""
        self.past.append(metrics)
        self.best, self._share = best, 0.0

    def seconds_left(self) -> float | None:
        """As long as the rest takes at the pace so far; None before anything is done."""
        done = len(self.past) - self._first + self._share
        if done <= 0:
            return None
        return (self.clock() - self._started) / done * (self.epochs - self._first - done)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw no more lines than the terminal has."""
        room = max(1, console.height - _OTHER_LINES - len(self.planned))
        for name, value in self.planned.items():
            yield Text.assemble((f"{name}: ", "bold"), value, no_wrap=True, overflow="ellipsis")
        if self.past:
            yield self._table(self.past[-min(room, _MOST_EPOCHS) :])
        yield self._bar()

    def _table(self, shown: Sequence[Mapping[str, Any]]) -> Table:
        names = [name for name in shown[0] if name.startswith("val_") and name != "val_loss"][:_MOST_FIGURES]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("epoch", "train loss", "val loss", *map(words, names), "images/s", ""):
            table.add_column(title, justify="right", no_wrap=True)
        for line in shown:
            figures = (number(line[name]) for name in ("train_loss", "val_loss", *names))
            best = "best so far" if line["epoch"] == self.best else ""
            table.add_row(str(line["epoch"]), *figures, f"{line['images_per_second']:.0f}", best)
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


def number(value: float | None) -> str:
    """A figure with four digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(75), duration(3661)
    ('1:15', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
