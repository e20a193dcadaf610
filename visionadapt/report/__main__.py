"""`python -m visionadapt.report RUN`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.errors import SourceError, UsageError, VisionAdaptError
from visionadapt.runs.options import OutputOptions

if TYPE_CHECKING:
    from visionadapt.core.records import Source

app = shell.app(
    "report",
    "python -m visionadapt.report runs/first",
    "python -m visionadapt.report runs/first --data moved/photos",
)


@app.default
def main(
    run: str,
    /,
    *,
    data: str | None = None,
    weights: str | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Write the report of a run again: report.html in the run folder.

    Parameters
    ----------
    run
        Run folder.
    data
        Where the images are now, as for train; by default where they were in training.
    weights
        Backbone weights, if they are no longer where training found them.
    """
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.report.page import write_report
    from visionadapt.runs.hub import on_hub

    if on_hub(run):
        raise UsageError(f"{run}: a repository has no results of a training; its model card tells them")
    folder = Path(run)
    written = str(write_report(folder, _images_of(folder, data), weights=weights))
    reporter.say(f"report: {written}")
    reporter.event("report", {"out": written})
    reporter.answer(written)


def _images_of(run: Path, data: str | None) -> Source | VisionAdaptError:
    """Return the source of a run's images, or the error that explains why it is not available.

    Code that a run folder names is imported only if the user names it again.

    Raises:
        UsageError: `data` is given and cannot be opened, or it is not a run folder.
    """
    from visionadapt.runs import trust
    from visionadapt.runs.folder import read_json
    from visionadapt.runs.options import read_options
    from visionadapt.sources.opening import open_source

    if data is not None:
        return open_source(data)
    stored = read_options(read_json(run, "config.json")).get("data")
    if stored is None:
        return SourceError("the run does not say where its images are; name them with --data")
    reasons = trust.wants("data", stored)
    if reasons:
        return SourceError(f"the run would {' and '.join(reasons)}; to allow that, repeat it: --data {stored!r}")
    try:
        return open_source(stored)
    except VisionAdaptError as error:
        return error


if __name__ == "__main__":
    shell.main(app)
