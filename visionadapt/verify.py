"""`python -m visionadapt.verify RUN-OR-EXPORT`: send golden images through every path, and compare the answers."""

from __future__ import annotations

from pathlib import Path

from visionadapt.commands import shell
from visionadapt.commands.exports import check_libraries, report
from visionadapt.runs.options import Flag, OutputOptions

app = shell.app(
    "verify",
    "python -m visionadapt.verify runs/first",
    "python -m visionadapt.verify exported --run runs/first",
)


@app.default
def main(
    folder: str,
    /,
    *,
    run: str | None = None,
    weights: str | None = None,
    trust: Flag = False,
    output: OutputOptions | None = None,
) -> int:
    """Check that a run, or an export of it, still gives the answers of the training. Exit code 1: it does not.

    Parameters
    ----------
    folder
        Run folder, hf://ORG/NAME, or exported folder.
    run
        Run folder that was exported; without it, an export is only compared with what it says of itself.
    weights
        Backbone weights, if they are no longer where training found them.
    trust
        Open model.pt2 of an export with --format torch, which could run code: only for an export of your own.
    """
    if (Path(folder) / "model.onnx").exists():
        check_libraries()
    from visionadapt.export.verify import verify

    return report((output or OutputOptions()).reporter(), verify(folder, run, weights=weights, trust=trust))


if __name__ == "__main__":
    shell.main(app)
