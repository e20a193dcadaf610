"""`python -m visionadapt.train --data DIR`: train a classifier on labelled images."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, ArgumentCollection, Group, Parameter

from visionadapt.commands import shell
from visionadapt.commands.config_file import from_file
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.options import Flag, OutputOptions, RunOptions, check_task, with_folder


def _check_task(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse tasks that are no classification, before the parser refuses every unknown word alike."""
    for argument in arguments:
        if argument.name == "--task":
            for token in argument.tokens:
                check_task(token.value)


app = shell.app(
    "train",
    "python -m visionadapt.train photos",
    "python -m visionadapt.train --data photos --adapter 'lora(rank=8)' --out runs/lora",
    "python -m visionadapt.train --data 'csv(labels.csv, image=file, label=label)'",
    "python -m visionadapt.train --resume runs/lora",
)
app.config = (from_file, _check_task, *app.config)


@app.default
def main(
    folder: str | None = None,
    /,
    *,
    config: str | None = None,
    trust_config: Flag = False,
    options: RunOptions | None = None,
    settings: Annotated[TrainingSettings | None, Parameter(name="*", group=Group("Training", sort_key=4))] = None,
    output: OutputOptions | None = None,
) -> None:
    """Train an image classifier: adapter layers and a new head on a frozen backbone.

    Parameters
    ----------
    folder
        The same as --data, which may also be given without its name.
    config
        TOML file of options, such as epochs = 5; options on the command line take precedence.
    trust_config
        Allow the file of --config to import the modules and contact the servers that it names.
    """
    options = with_folder(options, folder)
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.commands.training_run import train

    train(options, settings or TrainingSettings(), reporter)


if __name__ == "__main__":
    shell.main(app)
