"""`python -m visionadapt.train`: a folder of pictures becomes a classifier."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from visionadapt import command
from visionadapt.options import OutputOptions, RunOptions
from visionadapt.settings import TrainingSettings

app = command.app("train", "Turn a folder of pictures into a classifier: adapter layers and a new head.")


@app.default
def main(
    *,
    options: RunOptions | None = None,
    settings: Annotated[TrainingSettings | None, Parameter(name="*")] = None,
    output: OutputOptions | None = None,
) -> None:
    """Turn a folder of pictures into a classifier: adapter layers and a new head."""
    from visionadapt.training import train

    train(options or RunOptions(), settings or TrainingSettings(), (output or OutputOptions()).reporter())


if __name__ == "__main__":
    raise SystemExit(command.run(app))
