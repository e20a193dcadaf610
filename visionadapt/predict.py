"""`python -m visionadapt.predict RUN FILES-OR-FOLDERS`: classify images, and print or write the results."""

from __future__ import annotations

import codecs
import dataclasses
import glob
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from visionadapt.commands import shell
from visionadapt.core.sharding import Shard
from visionadapt.errors import SourceError, UsageError
from visionadapt.runs.options import ClusterOptions, Flag, InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.core.records import Manifest, Source
    from visionadapt.core.sharding import Part
    from visionadapt.prediction.bulk import Outcome
    from visionadapt.prediction.prediction import Prediction
    from visionadapt.prediction.predictor import Predictor
    from visionadapt.prediction.target import Target


@Parameter(name="*", group=Group("Results", sort_key=2))
@dataclass(frozen=True)
class ListingOptions:
    """What is printed, and how many images may be rejected."""

    top: int = 1
    """Print this many of the most probable classes."""

    max_rejected: str = "100%"
    """Images that may be rejected before the exit code is 1: a share such as 5%, or a number."""

    strict: Flag = False
    """No image may be rejected: the same as --max-rejected 0."""

    @property
    def limit(self) -> str:
        """The limit on rejected images."""
        return "0" if self.strict else self.max_rejected

    def check(self) -> None:
        """Raise UsageError if an option is out of range."""
        from visionadapt.runs.ledger import most_rejected

        most_rejected(self.max_rejected, rows=0)
        if self.top < 1:
            raise UsageError(f"--top {self.top}: give a number of classes of at least 1")


@Parameter(name="*", group=Group("URLs", sort_key=2))
@dataclass(frozen=True)
class UrlOptions:
    """Which URLs may be requested: the hosts of those on the command line, and these."""

    hosts: str = ""
    """Further hosts, separated by commas, of URLs in lists and of redirects."""

    private: Flag = False
    """Allow addresses that only this machine or its network reaches."""


@Parameter(name="*", group=Group("Table", sort_key=1))
@dataclass(frozen=True)
class TableOptions:
    """The table that is written."""

    out: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Table to write, .csv, .jsonl or .parquet, or - for CSV on standard output: file, label, probability, whether to
    abstain, distance from the training images, why an image could not be used, and the probability of every class. By
    default, the results are printed."""

    overwrite: Flag = False
    """Replace the table that --out names."""

    shard: str | None = None
    """Classify one part of the images only, such as 3/16, into predictions-00003-of-00016.csv; merge puts the parts
    together."""

    def target(self) -> Target | None:
        """Return the table; None where the results are printed. Raise UsageError if a part of it has no name."""
        from visionadapt.prediction.target import Target

        if self.shard is not None and self.out in {None, STANDARD_OUTPUT}:
            raise UsageError(f"--shard {self.shard} needs --out, the table that the parts make together")
        if self.out is None or self.out == STANDARD_OUTPUT:
            return None
        return Target(self.out).of(None if self.shard is None else Shard.parse(self.shard))


app = shell.app(
    "predict",
    "python -m visionadapt.predict runs/first cat.jpg --top 3",
    "python -m visionadapt.predict runs/first photos/ more.jpg --out predictions.csv",
    "python -m visionadapt.predict runs/first @files.txt --out predictions.parquet",
    "find photos -name '*.jpg' | python -m visionadapt.predict runs/first - --json",
    "python -m visionadapt.predict runs/first https://example.org/cat.jpg",
)

STANDARD_OUTPUT = "-"


@app.default
def main(
    run: str,
    paths: list[str] | None = None,
    /,
    *,
    data: str | None = None,
    table: TableOptions | None = None,
    listing: ListingOptions | None = None,
    urls: UrlOptions | None = None,
    inference: InferenceOptions | None = None,
    cluster: ClusterOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Classify images with a trained classifier; print them, or write a table.

    Repeat a command with --out to resume an interrupted prediction. Exit code 1: more images were rejected than may be.

    Parameters
    ----------
    run
        Run folder of the trained classifier, or hf://ORG/NAME for one on the Hugging Face hub.
    paths
        Image files, or patterns such as 'photos/*.jpg'; folders, of which every file is used; http and https URLs;
        @list.txt for files and URLs listed in a text file, one per line; - or @- for such a list on standard input. Or
        one place in object storage or on the hub, such as s3://bucket/photos or hf://datasets/ORG/NAME; or tar and zip
        archives, which are not unpacked.
    data
        Source instead of paths, such as csv(images.csv, image=file).
    """
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.data.loading import choose_workers
    from visionadapt.prediction import bulk
    from visionadapt.runs import ledger, saved
    from visionadapt.runs.hub import local_run

    listing = listing or ListingOptions()
    listing.check()
    table, cluster = table or TableOptions(), cluster or ClusterOptions()
    cluster.check(table.shard, table.out)
    out, target = table.out, table.target()
    if target is not None and table.shard is None:
        bulk.check_free(target.local, None, table.overwrite)
        target.check_absent(table.overwrite)
    manifest, part = _images(paths or [], data, urls or UrlOptions(), table.shard)
    inference = inference or InferenceOptions()
    folder = local_run(run)
    predictor = saved.load(folder, inference.device, weights=inference.weights)
    if predictor.calibration.images == 0:
        reporter.say(str(predictor.calibration))
    job = Job(predictor, manifest, choose_workers(inference.workers, len(manifest)), reporter, part)
    if target is not None and cluster.engine is not None:
        outcome = job.on_cluster(target, folder, table.overwrite, cluster, inference)
    elif target is not None:
        outcome = job.into(target, folder, table.overwrite)
    else:
        outcome = job.as_csv() if out == STANDARD_OUTPUT else job.printed(listing.top)
    job.tell(outcome, target, out)
    return int(outcome.rejected > ledger.most_rejected(listing.limit, len(manifest)))


@dataclass(frozen=True)
class Job:
    """A classifier and the images to classify."""

    predictor: Predictor
    manifest: Manifest
    workers: int
    reporter: Reporter
    part: Part | None = None

    def into(self, target: Target, run: Path, overwrite: bool) -> Outcome:
        """Write a table, and keep what is done if it is interrupted; a shard that is there already is kept."""
        from visionadapt.prediction import bulk
        from visionadapt.prediction.shards import proof_path, write_proof

        out = target.local
        if self.part is None:
            outcome = self._into(out, run, overwrite)
            target.publish()
            return outcome
        model, rows = bulk.model_hash(run, self.predictor), len(self.manifest)
        done = None if overwrite else target.written(self.part, model)
        if done is not None:
            return bulk.Outcome(rows - done.rejected, done.rejected, rows)
        # a table without its proof is one whose process ended between the two
        outcome = self._into(out, run, overwrite or not proof_path(out).exists())
        write_proof(out, self.part, model, outcome.rejected)
        target.publish(proof=True)
        return outcome

    def on_cluster(
        self, target: Target, run: Path, overwrite: bool, options: ClusterOptions, inference: InferenceOptions
    ) -> Outcome:
        """Write a table that the machines of a cluster compute in parts; parts that are there already are kept."""
        from visionadapt.clusters.shard_work import PredictShards
        from visionadapt.clusters.table import compute_table
        from visionadapt.prediction import bulk

        work = PredictShards(
            target.absolute(),
            bulk.model_hash(run, self.predictor),
            inference.device,
            inference.weights,
            run=run.absolute(),
        )
        with self.reporter.progress("images") as progress:
            return compute_table(work, self.manifest, options, overwrite=overwrite, progress=progress)

    def tell(self, outcome: Outcome, target: Target | None, out: str | None) -> None:
        """Say what came of the images; `out` is the option as it was given."""
        resumed = f", {outcome.resumed} of them before the interruption" if outcome.resumed else ""
        if target is not None or len(self.manifest) > 1 or outcome.rejected:
            told = f"{target}: " if target is not None else ""
            self.reporter.say(f"{told}{outcome.classified} classified, {outcome.rejected} rejected{resumed}")
        self.reporter.event("prediction", {"out": out, **dataclasses.asdict(outcome)})
        if target is not None:
            self.reporter.answer(str(target))

    def _into(self, out: Path, run: Path, overwrite: bool) -> Outcome:
        from visionadapt.prediction import bulk

        identity = bulk.identity(run, self.predictor, self.manifest)
        bulk.check_free(out, identity, overwrite)
        stopped = "stopped; predictions so far are saved: repeat the command to resume"
        with self.reporter.if_stopped(stopped), self.reporter.progress("images") as progress:
            return bulk.predict_into(out, self.predictor, self.manifest, identity, self.workers, progress)

    def as_csv(self) -> Outcome:
        """Write CSV to standard output."""
        from visionadapt.console.predictions import DECIMALS
        from visionadapt.prediction.tables import writing_to

        classes, task = self.predictor.classes, self.predictor.task
        with writing_to(sys.stdout.buffer, ".csv", classes, task, decimals=DECIMALS) as write:
            return self._each(lambda row: write([row], [()]))

    def printed(self, top: int) -> Outcome:
        """Print a line per image, with its `top` most probable classes; or an event, with all of them."""
        from visionadapt.console.predictions import event_of, line_of

        def show(row: Prediction) -> None:
            self.reporter.line(line_of(row, top))
            self.reporter.event("image", event_of(row))

        return self._each(show)

    def _each(self, show: Callable[[Prediction], None]) -> Outcome:
        from visionadapt.prediction.bulk import Outcome

        rejected = 0
        piped = self.reporter.progress("images", bar=False) if not sys.stdout.isatty() else nullcontext()
        with piped as progress:
            for done, (row, _) in enumerate(self.predictor.stream(self.manifest, self.workers), 1):
                show(row)
                rejected += row.problem is not None
                if progress is not None:
                    progress(done, len(self.manifest))
        sys.stdout.flush()
        return Outcome(len(self.manifest) - rejected, rejected, 0)


def _images(paths: list[str], data: str | None, urls: UrlOptions, shard: str | None) -> tuple[Manifest, Part | None]:
    from visionadapt.core.sharding import rows_of

    manifest, part = rows_of(_source(paths, data, urls), shard)
    if part is None and not len(manifest):
        raise SourceError(f"no images in {data or ', '.join(paths)}; name files, folders or a source")
    return manifest, part


def _source(paths: list[str], data: str | None, urls: UrlOptions) -> Source:
    """Return the images that the command names: files, folders, URLs and lists, or a source."""
    from visionadapt.sources import BucketSource, FileSource, ShardSource
    from visionadapt.sources.hub import is_hub_address
    from visionadapt.sources.named import NamedSource, is_url
    from visionadapt.sources.objects.urls import is_object_url
    from visionadapt.sources.opening import advice_for_path, open_images, open_source

    if (data is None) == (not paths):
        raise UsageError("name the images: either files and folders after the run folder, or one source with --data")
    if data is not None:
        return open_source(data)
    advice = list(map(advice_for_path, paths))
    if advice[0] is not None and None not in advice:  # among images, such a file is a row that is rejected
        raise UsageError(advice[0])
    archives = _archives(paths)
    if archives:
        return ShardSource(archives, label=None, split=None)
    if len(paths) == 1 and is_object_url(paths[0]):
        return BucketSource(paths[0], labelled=False)
    if len(paths) == 1 and is_hub_address(paths[0]):
        return open_images(paths[0])
    named: list[str] = []
    strict: list[str] = []
    for path in paths:
        listed = _listed(path)
        given = _expanded(path) if listed is None else []
        named += given if listed is None else listed
        strict += given
    FileSource([name for name in strict if not is_url(name)])
    if any(map(is_url, named)):
        hosts = [*filter(None, urls.hosts.split(",")), *(_host(name) for name in strict if is_url(name))]
        return NamedSource(named, hosts=hosts, private=urls.private)
    return FileSource(named, strict=False)


def _archives(paths: list[str]) -> list[str]:
    """Return the archives that the command names; raise UsageError if it names other images too."""
    from visionadapt.sources.archives.patterns import is_archive, is_compressed
    from visionadapt.sources.named import is_url

    found = [path for path in paths if (is_archive(path) or is_compressed(path)) and not is_url(path)]
    archives = [path for path in found if not Path(path).is_dir()]
    if archives and len(archives) < len(paths):
        raise UsageError(f"{archives[0]} is an archive; classify archives and other images with a command each")
    return archives


def _host(url: str) -> str:
    """Return the host and port of a URL of the command line."""
    from visionadapt.sources.web.urls import shown, split_url

    parts = split_url(url)
    if parts is None or not parts.hostname or "@" in parts.netloc:
        raise UsageError(f"{shown(url)} cannot be requested; give https://host/path, without user and password")
    return parts.netloc


def _expanded(argument: str) -> list[str]:
    """Return the files that match a pattern such as `photos/**/*.jpg`, in order; else the argument itself."""
    if glob.has_magic(argument) and "://" not in argument and not os.path.lexists(argument):
        return sorted(glob.glob(argument, recursive=True)) or [argument]  # noqa: PTH207
    return [argument]


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
    content = _as_utf8(content, argument[1:]).removeprefix(codecs.BOM_UTF8)
    ends = b"\0" if b"\0" in content else b"\n"
    names = [name if ends == b"\0" else name.removesuffix(b"\r") for name in content.split(ends)]
    return [os.fsdecode(name) for name in names if name]


def _as_utf8(content: bytes, name: str) -> bytes:
    """Return a list of files as bytes of UTF-8; raise SourceError where it is UTF-16 without a mark, or damaged.

    Windows writes UTF-16 with `dir > list.txt`. Its NUL bytes would be taken for those between names.
    """
    start = content[:200]
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not marked and not (len(start) >= 8 and 0 in (sum(start[::2]), sum(start[1::2]))):
        return content
    with suppress(UnicodeDecodeError):
        if marked:
            return content.decode("utf-16").encode()
    raise SourceError(f"the list {name} is UTF-16 without a mark, or damaged; save it as UTF-8")


if __name__ == "__main__":
    shell.main(app)
