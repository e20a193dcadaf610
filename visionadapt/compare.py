"""`python -m visionadapt.compare --data DIR`: several adapters side by side on one split, with advice."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

from visionadapt.commands import shell
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.options import OutputOptions, RunOptions, with_folder

app = shell.app(
    "compare",
    "python -m visionadapt.compare photos",
    "python -m visionadapt.compare photos --minutes 10 --out runs/compared",
    "python -m visionadapt.compare --resume runs/compared",
)


@app.default
def main(
    folder: str | None = None,
    /,
    *,
    options: RunOptions | None = None,
    settings: Annotated[TrainingSettings | None, Parameter(name="*", group=Group("Training", sort_key=4))] = None,
    output: OutputOptions | None = None,
) -> None:
    """Train a solved head and several adapters on the same split, and tell which one to use.

    The result is a page with their accuracies and the intervals of the differences, times, memory and sizes, a learning
    curve with its forecast for twice the images, and advice. Every candidate has a run folder of its own.

    The options are those of train, but for --adapter, --head, --plan, --folds, --shard, --from, --refit, --max-minutes
    and --overwrite, which compare refuses. --minutes limits the time of all candidates together.

    Parameters
    ----------
    folder
        The same as --data, which may also be given without its name.
    """
    options = with_folder(options, folder)
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.commands.comparing import compare

    compare(options, settings or TrainingSettings(), reporter)


if __name__ == "__main__":
    shell.main(app)
