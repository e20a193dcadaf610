"""`python -m visionadapt.pull SOURCE --out DIR`: store any source as a manifest and the bytes of its images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.runs.options import Exclude, Flag, OutputOptions
from visionadapt.system.text import counted

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.pull.pull import Pulled

app = shell.app(
    "pull",
    "python -m visionadapt.pull photos --out frozen --val 0.2",
    "python -m visionadapt.pull 'csv(labels.csv, image=url, label=label)' --out frozen",
    "python -m visionadapt.pull photos --out frozen --shards 1GB",
    "python -m visionadapt.train --data 'manifest(frozen)'",
)


@app.default
def main(
    source: str,
    /,
    *,
    out: str,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    workers: int = 8,
    refresh: Flag = False,
    exclude: Exclude = None,
    shards: str | None = None,
    shards_out: str | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Store the rows of a source as a manifest, and the bytes of its images.

    An interrupted pull resumes where it stopped; a repeated one fetches only what is new or has changed.

    Parameters
    ----------
    source
        Folder of class folders, or a source such as csv(labels.csv, image=file, label=label).
    out
        Folder for manifest.parquet and the bytes.
    val
        Share of each class to assign to validation; a row never changes its split.
    test
        Share of each class to assign to testing.
    seed
        Random seed of these splits; 0 by default.
    workers
        Threads that fetch images.
    refresh
        Fetch everything again.
    exclude
        The findings.csv of an audit, with drop or relabel in its column action for rows to leave out or correct.
    shards
        Write the images as tar archives of at most this size too, such as 1GB, into the folder's shards.
    shards_out
        Place in object storage, such as s3://bucket/shards, to copy these archives to.
    """
    from visionadapt.frozen.cache.eviction import read_size
    from visionadapt.pull.pull import pull
    from visionadapt.sources.edited import edited_rows
    from visionadapt.sources.opening import open_source

    reporter, most_bytes = (output or OutputOptions()).reporter(), None if shards is None else read_size(shards)
    if shards_out is not None:
        _check_shards_out(shards_out, shards)
    chosen = edited_rows(open_source(source), exclude, reporter.say)
    stopped = "stopped; images fetched so far are stored: repeat the command to resume"
    with reporter.if_stopped(stopped), reporter.progress("images") as progress:
        pulled = pull(chosen, out, val=val, test=test, seed=seed, workers=workers, refresh=refresh, progress=progress)
    _print(reporter, pulled, out)
    if most_bytes is not None:
        _write_shards(reporter, out, most_bytes, shards_out)
    reporter.event("pulled", {"out": out, **dataclasses.asdict(pulled)})
    reporter.answer(out)


def _check_shards_out(url: str, shards: str | None) -> None:
    from visionadapt.sources.objects.urls import object_url

    if shards is None:
        raise UsageError("--shards-out needs --shards, the size of an archive, such as --shards 1GB")
    object_url(url)


def _write_shards(reporter: Reporter, out: str, most_bytes: int, url: str | None) -> None:
    from visionadapt.pull.shards import FOLDER, put_shards, write_shards

    written = write_shards(out, most_bytes)
    left_out = f", {counted(written.left_out, 'row')} without bytes left out" if written.left_out else ""
    reporter.say(
        f"{out}/{FOLDER}: {counted(written.images, 'image')} in {counted(written.archives, 'archive')}{left_out}"
    )
    if url is not None:
        put_shards(out, url)
        reporter.say(f"{url}: {counted(written.archives, 'archive')} copied")


def _print(reporter: Reporter, pulled: Pulled, out: str) -> None:
    for key, reason in pulled.reasons:
        reporter.say(f"{key}: {reason}")
    if pulled.failed > len(pulled.reasons):
        reporter.say(f"and {pulled.failed - len(pulled.reasons)} more with a problem, listed in the manifest")
    rows = {
        "rows": f"{pulled.rows} ({pulled.failed} with a problem)",
        "fetched now": str(pulled.fetched),
        "removed": str(pulled.removed),
        "manifest": f"{out}, {pulled.fingerprint}{'' if pulled.changed else ' (unchanged)'}",
    }
    reporter.table("pulled", rows)


if __name__ == "__main__":
    shell.main(app)
