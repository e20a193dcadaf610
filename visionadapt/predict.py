"""`python -m visionadapt.predict RUN FILES-OR-FOLDERS --out predictions.csv`: classify images."""

from __future__ import annotations

import codecs
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.errors import SourceError, Terminated, UsageError
from visionadapt.run_folder.options import Flag, InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from visionadapt.core.records import Source

app = shell.app(
    "predict",
    "python -m visionadapt.predict runs/first photos/ more.jpg",
    "python -m visionadapt.predict runs/first @files.txt --out predictions.parquet",
    "find photos -name '*.jpg' | python -m visionadapt.predict runs/first @-",
)


@app.default
def main(
    run: str,
    paths: list[str] | None = None,
    /,
    *,
    data: str | None = None,
    out: str = "predictions.csv",
    overwrite: Flag = False,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Classify images with a trained classifier; repeat the command to resume an interrupted prediction.

    Parameters
    ----------
    run
        Run folder of the trained classifier.
    paths
        Image files; folders, of which every file is used; @list.txt for files listed in a text file, one per line; @-
        for such a list on standard input.
    data
        Source instead of paths, such as csv(images.csv, image=file).
    out
        Table to write, .csv, .jsonl or .parquet: file, label, probability, whether to abstain, distance from the
        training images, why an image could not be used, and the probability of every class.
    overwrite
        Replace the table that --out names.
    """
    from visionadapt.core.records import Manifest
    from visionadapt.data.loading import choose_workers
    from visionadapt.prediction import bulk
    from visionadapt.run_folder import saved

    target = Path(out)
    bulk.check_free(target, None, overwrite)
    source = _source(paths or [], data)
    manifest = Manifest(source, source)
    if not len(manifest):
        raise SourceError(f"no images in {data or ', '.join(paths or ())}; name files, folders or a source")
    inference = inference or InferenceOptions()
    predictor = saved.load(run, inference.device, weights=inference.weights)
    reporter = (output or OutputOptions()).reporter()
    if predictor.calibration.images == 0:
        reporter.say(str(predictor.calibration))
    identity = bulk.identity(Path(run), predictor, manifest)
    bulk.check_free(target, identity, overwrite)
    processes = choose_workers(inference.workers, len(manifest))
    try:
        with reporter.progress("images") as progress:
            outcome = bulk.predict_into(target, predictor, manifest, identity, processes, progress)
    except (KeyboardInterrupt, Terminated):
        reporter.say("stopped; predictions so far are saved: repeat the command to resume")
        raise
    resumed = f", {outcome.resumed} of them before the interruption" if outcome.resumed else ""
    reporter.say(f"{target}: {outcome.classified} classified, {outcome.rejected} rejected{resumed}")
    reporter.event("prediction", {"out": out, **dataclasses.asdict(outcome)})
    reporter.answer(out)


def _source(paths: list[str], data: str | None) -> Source:
    """Return the images that the command names: files, folders and lists, or a source."""
    from visionadapt.sources import FileSource
    from visionadapt.sources.opening import open_source

    if (data is None) == (not paths):
        raise UsageError("name the images: either files and folders after the run folder, or one source with --data")
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
    """Return the files listed in `@list.txt` or on standard input (`@-`); None if the argument is a file or folder.

    Names are separated by line ends, or by NUL bytes if there are any (`find -print0`).
    """
    if argument == "@-":
        content = sys.stdin.buffer.read()
    elif argument.startswith("@") and not Path(argument).exists():
        try:
            content = Path(argument[1:]).read_bytes()
        except OSError as error:
            reason = f"{argument[1:]} cannot be read ({error.strerror})"
            raise SourceError(f"{reason}; name a text file with one path per line") from error
    else:
        return None
    content = content.removeprefix(codecs.BOM_UTF8)
    ends = b"\0" if b"\0" in content else b"\n"
    names = [name if ends == b"\0" else name.removesuffix(b"\r") for name in content.split(ends)]
    return [os.fsdecode(name) for name in names if name]


if __name__ == "__main__":
    shell.main(app)
