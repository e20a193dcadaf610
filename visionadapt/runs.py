"""`python -m visionadapt runs DIR`: list the run folders below a folder, and compare them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.commands.config_file import toml_text
from visionadapt.run_folder.options import OutputOptions
from visionadapt.run_folder.overview import RunOverview, differences, overviews, repeating
from visionadapt.system.text import terminal_safe

app = shell.app("runs", "List the run folders below a folder, and compare them.")

_WIDE = 10_000
_STATES = {"finished": "finished", "unfinished": "goes on with --resume"}


@app.default
def main(
    folder: str = "runs",
    /,
    *,
    toml: Annotated[bool, Parameter(negative=())] = False,
    output: OutputOptions | None = None,
) -> None:
    """List the run folders below a folder, the best first, and tell where their settings differ.

    Parameters
    ----------
    folder
        Where the run folders are.
    toml
        Write the settings of one run as TOML, to repeat it by train --config; the folder is that run's.
    """
    chosen, place = output or OutputOptions(), Path(folder)
    if toml:
        sys.stdout.write(toml_text(repeating(place)))
        return
    runs = overviews(place)
    if chosen.json:
        for run in runs:
            sys.stdout.write(f"{json.dumps({'event': 'run', **run.to_json()})}\n")
    elif chosen.quiet:
        for run in runs:
            sys.stdout.write(f"{terminal_safe(str(run.folder))}\n")
    else:
        _show(runs, place)


def _show(runs: Sequence[RunOverview], place: Path) -> None:
    """A table to standard output, as wide as the terminal, or as it needs to be elsewhere."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else _WIDE
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "run", "validation", "epochs", "seconds", "began", "state"):
        table.add_column(title, overflow="fold")
    for number, run in enumerate(runs, 1):
        table.add_row(str(number), *(Text(terminal_safe(cell)) for cell in _cells(run, place)))
    if runs:
        console.print(table)
    for line in _comparison(runs, place):
        console.print(Text(terminal_safe(line)))


def _cells(run: RunOverview, place: Path) -> Iterator[str]:
    yield str(run.folder.relative_to(place)) if run.folder != place else run.folder.name
    yield "–" if run.value is None else _figure(run)
    yield str(run.epochs) if run.planned is None else f"{run.epochs}/{run.planned}"
    yield "–" if run.seconds is None else f"{run.seconds:.1f}"
    yield "–" if run.began is None else f"{run.began:%Y-%m-%d %H:%M}"
    yield _STATES.get(run.state, f"damaged: {run.problem}")


def _figure(run: RunOverview) -> str:
    name = str(run.figure).removeprefix("val_").replace("_", " ")
    return f"{name} {run.value:.4f}" + (f" ({run.interval[0]:.3f}–{run.interval[1]:.3f})" if run.interval else "")


def _comparison(runs: Sequence[RunOverview], place: Path) -> Iterator[str]:
    """What all runs have in common, and each setting in which they differ, with the numbers of the runs behind it."""
    if not runs:
        yield f"no run folders in {place}"
    differing = differences(runs)
    for name in ("backbone", "adapter"):
        values = {str(run.settings[name]) for run in runs if name in run.settings}
        if len(values) == 1:
            yield f"{name}: {values.pop()}"
    for name, places in differing.items():
        told = (f"{value} ({', '.join(str(number + 1) for number in numbers)})" for value, numbers in places.items())
        yield f"{name.replace('_', '-')}: {'; '.join(told)}"


if __name__ == "__main__":
    shell.main(app)
