"""`python -m visionadapt.train`: a folder of pictures becomes a classifier."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from visionadapt import command
from visionadapt.configuration import from_file
from visionadapt.options import OutputOptions, RunOptions
from visionadapt.settings import TrainingSettings

app = command.app("train", "Turn a folder of pictures into a classifier: adapter layers and a new head.")
app.config = (from_file, *app.config)


@app.default
def main(
    *,
    config: str | None = None,
    options: RunOptions | None = None,
    settings: Annotated[TrainingSettings | None, Parameter(name="*")] = None,
    output: OutputOptions | None = None,
) -> None:
    """Turn a folder of pictures into a classifier: adapter layers and a new head.

    Parameters
    ----------
    config
        TOML file of options, such as `epochs = 5`; what stands on the command line comes first.
    """
    from visionadapt.training import train

    train(options or RunOptions(), settings or TrainingSettings(), (output or OutputOptions()).reporter())


if __name__ == "__main__":
    command.main(app)
