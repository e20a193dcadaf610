"""`python -m visionadapt.predict RUN FILES-OR-FOLDERS --out predictions.csv`: classify pictures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.errors import SourceError, Terminated, UsageError
from visionadapt.run_folder.options import BackboneWeights, Device, OutputOptions, Overwrite, Workers

if TYPE_CHECKING:
    from visionadapt.core.records import Source

app = shell.app("predict", "Classify pictures with a trained classifier.")


@app.default
def main(
    run: str,
    paths: list[str] | None = None,
    /,
    *,
    data: str | None = None,
    out: str = "predictions.csv",
    overwrite: Overwrite = False,
    weights: BackboneWeights = None,
    device: Device = "auto",
    workers: Workers = -1,
    output: OutputOptions | None = None,
) -> None:
    """Classify pictures with a trained classifier; repeat the command to go on where it was stopped.

    Parameters
    ----------
    run
        Run folder of the trained classifier.
    paths
        Picture files; folders of which every file is taken; @list.txt for the files that a text file names, a line
        each; @- for such a list on standard input.
    data
        A source instead of paths, such as csv(pictures.csv, image=file).
    out
        Table to write, .csv, .jsonl or .parquet: file, label, probability, whether to abstain, distance from the
        training pictures, the problem of a picture that cannot be used, then the probability of every class.
    """
    from pathlib import Path

    from visionadapt.core.records import Manifest
    from visionadapt.data.loading import choose_workers
    from visionadapt.prediction import bulk
    from visionadapt.run_folder import saving

    target = Path(out)
    bulk.check_free(target, None, overwrite)
    source = _source(paths or [], data)
    manifest = Manifest(source, source)
    if not len(manifest):
        raise SourceError(f"no pictures in {data or ', '.join(paths or ())}")
    predictor = saving.load(run, device, weights=weights)
    reporter = (output or OutputOptions()).reporter()
    if predictor.calibration.pictures == 0:
        reporter.say(str(predictor.calibration))
    identity = bulk.identity(Path(run), predictor, manifest)
    bulk.check_free(target, identity, overwrite)
    processes = choose_workers(workers, len(manifest))
    try:
        with reporter.progress("pictures") as progress:
            outcome = bulk.predict_into(target, predictor, manifest, identity, processes, progress)
    except (KeyboardInterrupt, Terminated):
        reporter.say("stopped; what was classified is kept: repeat the command to go on")
        raise
    resumed = f", {outcome.resumed} of them before" if outcome.resumed else ""
    reporter.say(f"{target}: {outcome.classified} classified, {outcome.rejected} rejected{resumed}")
    reporter.event("prediction", {"out": out, **dataclasses.asdict(outcome)})
    reporter.answer(out)


def _source(paths: list[str], data: str | None) -> Source:
    """The pictures that the command names: files, folders and lists, or a source."""
    from visionadapt.sources import FileSource
    from visionadapt.sources.opening import open_source

    if (data is None) == (not paths):
        raise UsageError("name the pictures: files or folders behind the run, or one source with --data")
    if data is not None:
        return open_source(data)
    named: list[str] = []
    strict: list[str] = []
    for path in paths:
        listed = _listed(path)
        named += [path] if listed is None else listed
        strict += [path] if listed is None else []
    FileSource(strict)
    return FileSource(named, strict=False)


def _listed(argument: str) -> list[str] | None:
    """The files that `@list.txt` or `@-` (standard input) stand for; None where the argument is a file or folder.

    Names end at line ends, or at NUL bytes where there are any (`find -print0`).
    """
    import codecs
    import os
    import sys
    from pathlib import Path

    if argument == "@-":
        content = sys.stdin.buffer.read()
    elif argument.startswith("@") and not Path(argument).exists():
        try:
            content = Path(argument[1:]).read_bytes()
        except OSError as error:
            raise SourceError(f"{argument[1:]} cannot be read ({error.strerror}); it should list files") from error
    else:
        return None
    content = content.removeprefix(codecs.BOM_UTF8)
    ends = b"\0" if b"\0" in content else b"\n"
    names = [name if ends == b"\0" else name.removesuffix(b"\r") for name in content.split(ends)]
    return [os.fsdecode(name) for name in names if name]


if __name__ == "__main__":
    shell.main(app)
