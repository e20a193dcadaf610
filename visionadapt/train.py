"""`python -m visionadapt.train`: a folder of pictures becomes a classifier."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.commands.config_file import from_file
from visionadapt.core.settings import TrainingSettings
from visionadapt.run_folder.options import OutputOptions, RunOptions

app = shell.app("train", "Turn a folder of pictures into a classifier: adapter layers and a new head.")
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
    from visionadapt.commands.training_run import train

    train(options or RunOptions(), settings or TrainingSettings(), (output or OutputOptions()).reporter())


if __name__ == "__main__":
    shell.main(app)
