"""`python -m visionadapt.report RUN`: make a run's report anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.errors import SourceError, VisionAdaptError
from visionadapt.run_folder.options import BackboneWeights, OutputOptions

if TYPE_CHECKING:
    from pathlib import Path

    from visionadapt.core.records import Source

app = shell.app("report", "Make a run's report anew.")


@app.default
def main(
    run: str,
    /,
    *,
    data: str | None = None,
    weights: BackboneWeights = None,
    output: OutputOptions | None = None,
) -> None:
    """Make the report of a run anew: report.html in the run folder.

    Parameters
    ----------
    run
        Run folder.
    data
        Where the pictures are now, as in training; by default where they were then.
    """
    from pathlib import Path

    from visionadapt.reporting import write_report

    folder = Path(run)
    reporter = (output or OutputOptions()).reporter()
    written = str(write_report(folder, pictures_of(folder, data), weights=weights))
    reporter.say(f"report: {written}")
    reporter.event("report", {"out": written})
    reporter.answer(written)


def pictures_of(run: Path, data: str | None) -> Source | VisionAdaptError:
    """The source of a run's pictures, or why it cannot be had.

    Code that a run folder names is imported only where the user names it again.

    Raises:
        UsageError: `data` is given and cannot be opened, or it is no run folder.
    """
    from visionadapt.run_folder import saving
    from visionadapt.sources.opening import open_source

    if data is not None:
        return open_source(data)
    stored = saving.read_json(run, "config.json").get("options", {}).get("data")
    if stored is None:
        return SourceError("the run does not tell where its pictures are; name them with --data")
    if ":" in stored.partition("(")[0]:
        return SourceError(f"the run reads them by code of its own; name it again to import it: --data {stored!r}")
    try:
        return open_source(stored)
    except VisionAdaptError as error:
        return error


if __name__ == "__main__":
    shell.main(app)
