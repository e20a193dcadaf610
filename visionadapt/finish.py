"""`python -m visionadapt.finish RUN`: make the best epoch of a stopped run its model."""

from __future__ import annotations

from pathlib import Path

from visionadapt.commands import shell
from visionadapt.runs.options import Flag, OutputOptions

app = shell.app("finish", "python -m visionadapt.finish runs/first")


@app.default
def main(run: str, /, *, trust_run: Flag = False, output: OutputOptions | None = None) -> None:
    """Make the best epoch of a stopped run its model, with calibration and report; --resume can still go on.

    Parameters
    ----------
    run
        Run folder of a run that was stopped after at least one epoch.
    trust_run
        Allow the run folder to import the modules and contact the servers that it names.
    """
    from visionadapt.commands.training_run import finish

    finish(Path(run), (output or OutputOptions()).reporter(), trusted=trust_run)


if __name__ == "__main__":
    shell.main(app)
