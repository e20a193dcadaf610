"""`python -m visionadapt.pull SOURCE --out DIR`: freeze any source into a manifest and the bytes of its pictures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.errors import Terminated
from visionadapt.run_folder.options import OutputOptions

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.pulling.pull import Pulled

app = shell.app("pull", "Freeze a source: its rows as a manifest, and the bytes of its pictures.")


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
    refresh: Annotated[bool, Parameter(negative=())] = False,
    output: OutputOptions | None = None,
) -> None:
    """Freeze a source: its rows as a manifest, and the bytes of its pictures.

    What was stopped goes on where it was; run again, only what is new or has changed is fetched. Train on it with
    --data 'manifest(DIR)'.

    Parameters
    ----------
    source
        Folder of class folders, or a source such as csv(labels.csv, image=file, label=label).
    out
        Folder for manifest.parquet and the bytes.
    val
        Share of each class to mark for validation; a row's part stays for good.
    test
        Share of each class to mark for testing.
    seed
        Settles which rows these are; 0 by default.
    workers
        Threads that fetch pictures.
    refresh
        Fetch everything again.
    """
    from visionadapt.pulling.pull import pull
    from visionadapt.sources.opening import open_source

    reporter = (output or OutputOptions()).reporter()
    chosen = open_source(source)
    try:
        with reporter.progress("pictures") as progress:
            pulled = pull(
                chosen, out, val=val, test=test, seed=seed, workers=workers, refresh=refresh, progress=progress
            )
    except (KeyboardInterrupt, Terminated):
        reporter.say("stopped; what was fetched is kept: pull again to go on")
        raise
    _tell(reporter, pulled, out)
    reporter.event("pulled", {"out": out, **dataclasses.asdict(pulled)})
    reporter.answer(out)


def _tell(reporter: Reporter, pulled: Pulled, out: str) -> None:
    for key, reason in pulled.reasons:
        reporter.say(f"{key}: {reason}")
    if pulled.failed > len(pulled.reasons):
        reporter.say(f"and {pulled.failed - len(pulled.reasons)} more with a problem, which the manifest tells")
    rows = {
        "rows": f"{pulled.rows} ({pulled.failed} with a problem)",
        "fetched now": str(pulled.fetched),
        "removed": str(pulled.removed),
        "manifest": f"{out}, {pulled.fingerprint}{'' if pulled.changed else ' (unchanged)'}",
    }
    reporter.table("pulled", rows)


if __name__ == "__main__":
    shell.main(app)
