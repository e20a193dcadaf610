"""`python -m visionadapt.runs DIR`: list and compare the run folders below a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from visionadapt.commands import shell
from visionadapt.run_folder.options import Flag, OutputOptions
from visionadapt.system.text import terminal_safe

app = shell.app(
    "runs",
    "python -m visionadapt.runs",
    "python -m visionadapt.runs experiments --json",
    "python -m visionadapt.runs runs/first --toml > first.toml",
)


@app.default
def main(folder: str = "runs", /, *, toml: Flag = False, output: OutputOptions | None = None) -> None:
    """List the run folders below a folder, best first, with the settings in which they differ.

    Parameters
    ----------
    folder
        Folder that contains run folders.
    toml
        Print the settings of the run in this folder as TOML, for train --config.
    """
    import tomli_w

    from visionadapt.run_folder.listing import print_runs
    from visionadapt.run_folder.overview import overviews, settings_of

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
        print_runs(runs, place)


if __name__ == "__main__":
    shell.main(app)
