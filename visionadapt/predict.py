"""`python -m visionadapt.predict RUN FILES-OR-FOLDERS --out predictions.csv`: classify pictures."""

from __future__ import annotations

from visionadapt import command
from visionadapt.errors import RunError, SourceError
from visionadapt.options import BackboneWeights, Device, Overwrite, Workers

app = command.app("predict", "Classify pictures with a trained classifier.")


@app.default
def main(
    run: str,
    paths: list[str],
    /,
    *,
    out: str = "predictions.csv",
    overwrite: Overwrite = False,
    weights: BackboneWeights = None,
    device: Device = "auto",
    workers: Workers = -1,
) -> None:
    """Classify pictures with a trained classifier.

    Parameters
    ----------
    run
        Run folder of the trained classifier.
    paths
        Picture files, and folders of which every file is taken.
    out
        CSV file to write: file, label, probability, then the probability of every class. A picture that cannot be
        used has empty cells there, and its reason in a second file, such as predictions.rejected.csv.
    """
    from pathlib import Path

    from visionadapt import runs
    from visionadapt.console import Reporter
    from visionadapt.data import choose_workers
    from visionadapt.prediction import rejected_beside, write_predictions
    from visionadapt.records import Manifest
    from visionadapt.sources import FileSource

    target = Path(out)
    there = next((path for path in (target, rejected_beside(target)) if path.exists()), None)
    if there is not None and not overwrite:
        raise RunError(f"{there} is there already; give another --out, or --overwrite it")
    source = FileSource(paths)
    manifest = Manifest(source, source)
    if not len(manifest):
        raise SourceError(f"no pictures in {', '.join(paths)}")
    predictor = runs.load(run, device, weights=weights)
    reporter = Reporter()
    with reporter.progress("pictures") as progress:
        rejected = write_predictions(target, predictor, manifest, choose_workers(workers, len(manifest)), progress)
    reporter.say(f"{target}: {len(manifest) - rejected} classified, {rejected} rejected")


if __name__ == "__main__":
    raise SystemExit(command.run(app))
