"""`python -m visionadapt.merge TABLE`: put the tables of all shards together, and prove that no row is missing."""

from __future__ import annotations

import dataclasses

from visionadapt.commands import shell
from visionadapt.errors import RunError
from visionadapt.runs.options import Flag, OutputOptions
from visionadapt.system.text import counted

app = shell.app(
    "merge",
    "python -m visionadapt.predict runs/first photos --out predictions.parquet --shard 3/16",
    "python -m visionadapt.merge predictions.parquet",
)


@app.default
def main(out: str, /, *, overwrite: Flag = False, output: OutputOptions | None = None) -> None:
    """Put the tables that predict and embed have written with --shard together into one, in the order of the source.

    Nothing is written unless each row of the source is there exactly once.

    Parameters
    ----------
    out
        Table to write: what the commands had as --out. The shards are beside it, such as
        predictions-00003-of-00016.parquet.
    overwrite
        Replace the table.
    """
    from visionadapt.prediction.target import Target

    target = Target(out)
    target.check_absent(overwrite)
    if target.remote is None and target.local.exists() and not overwrite:
        raise RunError(f"{out} already exists; give --overwrite to replace it")
    merged = target.merge()
    reporter = (output or OutputOptions()).reporter()
    left_out = f", {merged.left_out:,} rejected rows left out" if merged.left_out else ""
    merged_rows = f"{counted(merged.rows, 'row')} of {counted(merged.shards, 'shard')}"
    reporter.say(f"{out}: {merged_rows}, each row of the source once{left_out}")
    reporter.event("merged", {"out": out, **dataclasses.asdict(merged)})
    reporter.answer(out)


if __name__ == "__main__":
    shell.main(app)
