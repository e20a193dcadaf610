"""What a person sees while a command works: progress bars in a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from visionadapt import distributed
from visionadapt.features import Progress as Told


class Reporter:
    """Tells what goes on, on standard error; results that another program reads go to standard output or to files.

    Of several processes that train together the first one tells.
    """

    def __init__(self) -> None:
        quiet = not distributed.is_first()
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One plain line."""
        self._console.print(text.encode("utf-8", "backslashreplace").decode())

    @contextmanager
    def progress(self, what: str) -> Iterator[Told]:
        """Give a function to be called with (done, total); a bar in a terminal, one closing line elsewhere."""
        if not self._console.is_terminal:
            total = [0]
            yield lambda done, rows: total.__setitem__(0, rows)
            self.say(f"{what}: {total[0]}")
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, rows: bars.update(task, completed=done, total=rows)

    def table(self, title: str, rows: Mapping[str, str]) -> None:
        """A closing table of two columns."""
        if not self._console.is_terminal:
            for name, value in rows.items():
                self.say(f"{name}: {value}")
            return
        table = Table(title=title, show_header=False)
        for name, value in rows.items():
            table.add_row(name, value)
        self._console.print(table)
