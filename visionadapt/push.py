"""`python -m visionadapt.push RUN ORG/NAME`: publish a classifier on the Hugging Face hub, or write its files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from visionadapt.commands import shell
from visionadapt.runs.options import Flag, OutputOptions

app = shell.app(
    "push",
    "python -m visionadapt.push runs/first me/hats",
    "python -m visionadapt.push runs/first me/hats --out folder",
)


@app.default
def main(
    run: str,
    repository: str,
    /,
    *,
    out: str | None = None,
    public: Flag = False,
    weights: str | None = None,
    overwrite: Flag = False,
    output: OutputOptions | None = None,
) -> int:
    """Publish a classifier on the Hugging Face hub, with a model card, as timm and this library load it.

    It uploads weights, class names and what was measured: no images, file names, paths or options. Log in before with
    `hf auth login`.

    Parameters
    ----------
    run
        Run folder of the trained classifier, or hf://ORG/NAME for one on the Hugging Face hub.
    repository
        ORG/NAME of the repository, which is made if it is not there.
    out
        Write the files into this folder, and upload nothing.
    public
        Let everyone see a repository that is made; by default it is private.
    weights
        Backbone weights, if they are no longer where training found them.
    overwrite
        Replace the folder that --out names.
    """
    from visionadapt.export.hub_layout import upload, write_layout

    reporter = (output or OutputOptions()).reporter()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository" if out is None else Path(out)
        refused = write_layout(run, folder, repository, weights=weights, overwrite=overwrite)
        if refused is not None:
            reporter.say(f"timm alone cannot load it: {refused}")
        result = str(folder) if out is not None else upload(folder, repository, public=public)
    reporter.say(f"{'written' if out is not None else 'pushed'}: {result}")
    reporter.event("push", {"out": result, "timm": refused is None})
    reporter.answer(result)
    return 0


if __name__ == "__main__":
    shell.main(app)
