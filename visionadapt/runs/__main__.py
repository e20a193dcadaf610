"""`python -m visionadapt.runs DIR`: list and compare the run folders below a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.metrics.words import value_of, words
from visionadapt.runs.options import Flag, OutputOptions
from visionadapt.system.text import percent, terminal_safe

if TYPE_CHECKING:
    from rich.table import Table

    from visionadapt.runs.overview import RunOverview

_COLUMNS = ("", "run", "validation", "", "epochs", "seconds", "began", "state")
_STATES = {"finished": "finished", "unfinished": "resume with --resume"}
_WIDE = 10_000

app = shell.app(
    "runs",
    "python -m visionadapt.runs",
    "python -m visionadapt.runs experiments --json",
    "python -m visionadapt.runs runs/first --toml > first.toml",
)


@app.default
def main(folder: str = "runs", /, *, toml: Flag = False, output: OutputOptions | None = None) -> None:
    """List the run folders below a folder by their data, best first, with the settings in which they differ.

    Parameters
    ----------
    folder
        Folder that contains run folders.
    toml
        Print the settings of the run in this folder as TOML, for train --config.
    """
    import tomli_w

    from visionadapt.runs.overview import overviews, settings_of

    place, output = Path(folder), output or OutputOptions()
    if toml:
        text = tomli_w.dumps(settings_of(place))
        sys.stdout.write(terminal_safe(text) if sys.stdout.isatty() else text)
        return
    runs = overviews(place)
    if output.json:
        for run in runs:
            sys.stdout.write(f"{json.dumps({'event': 'run', **run.to_json()})}\n")
    elif output.quiet:
        for run in runs:
            sys.stdout.write(f"{terminal_safe(str(run.folder))}\n")
    else:
        _print_runs(runs, place)


def _print_runs(runs: Sequence[RunOverview], folder: Path) -> None:
    """Print runs below a folder to standard output, as wide as the terminal, or as needed elsewhere."""
    from rich.console import Console
    from rich.text import Text

    from visionadapt.runs.overview import by_data

    width = None if sys.stdout.isatty() else _WIDE
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    if not runs:
        console.print(Text(terminal_safe(f"no run folders in {folder}")))
    groups = by_data(runs)
    for number, (data, group) in enumerate(groups.items()):
        if number:
            console.print()
        if len(groups) > 1 or data:
            console.print(Text(terminal_safe(f"data: {data or 'not known'}"), style="bold"))
        console.print(_table(group, folder))
        for line in _comparison(group):
            console.print(Text(terminal_safe(line)))


def _table(runs: Sequence[RunOverview], folder: Path) -> Table:
    """Return runs on the same data as a table, in which those that none beats in less time are marked."""
    from rich.table import Table
    from rich.text import Text

    from visionadapt.runs.overview import frontier

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in _COLUMNS:
        table.add_column(title, overflow="fold")
    fast = frontier(runs)
    for number, run in enumerate(runs, 1):
        mark = "" if run not in fast else "best" if run is fast[-1] else "best in its time"
        name, value, *others = _cells(run, folder)
        table.add_row(str(number), *(Text(terminal_safe(cell)) for cell in (name, value, mark, *others)))
    return table


def _cells(run: RunOverview, folder: Path) -> Iterator[str]:
    yield str(run.folder.relative_to(folder)) if run.folder != folder else run.folder.name
    yield "–" if run.value is None else _metric(run)
    yield str(run.epochs) if run.planned is None else f"{run.epochs}/{run.planned}"
    yield "–" if run.seconds is None else f"{run.seconds:.1f}"
    yield "–" if run.began is None else f"{run.began:%Y-%m-%d %H:%M}"
    yield _STATES.get(run.state, f"damaged: {run.problem}")


def _metric(run: RunOverview) -> str:
    name = str(run.figure).removeprefix("val_")
    within = f" ({100 * run.interval[0]:.1f}–{percent(run.interval[1])})" if run.interval else ""
    return f"{words(name)} {value_of(name, run.value)}{within}"


def _comparison(runs: Sequence[RunOverview]) -> Iterator[str]:
    """Yield what all runs have in common, then each setting in which they differ, with the numbers of the runs."""
    from visionadapt.runs.overview import differences

    for name in ("backbone", "adapter"):
        values = {str(run.settings[name]) for run in runs if name in run.settings}
        if len(values) == 1:
            yield f"{name}: {values.pop()}"
    for name, places in differences(runs).items():
        values_of = (f"{value} ({', '.join(str(place + 1) for place in found)})" for value, found in places.items())
        yield f"{name.replace('_', '-')}: {'; '.join(values_of)}"


if __name__ == "__main__":
    shell.main(app)
