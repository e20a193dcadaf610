"""`python -m visionadapt.audit SOURCE`: what is wrong with a data set, before it is trained on."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from visionadapt.backbones import default_name
from visionadapt.commands import shell
from visionadapt.run_folder.options import Device, OutputOptions, Workers

app = shell.app("audit", "Look a data set over: copies on two sides, wrong labels, broken files, odd pictures.")


@app.default
def main(
    source: str,
    /,
    *,
    out: str | None = None,
    strict: Annotated[bool, Parameter(negative=())] = False,
    against: str | None = None,
    backbone: str = default_name,
    weights: str = "pretrained",
    image_size: int | None = None,
    val: float = 0.2,
    seed: int = 0,
    cache: str | None = None,
    device: Device = "auto",
    workers: Workers = -1,
    output: OutputOptions | None = None,
) -> int:
    """Look a data set over: copies on two sides, wrong labels, broken files, odd pictures.

    Parameters
    ----------
    source
        Folder of class folders, or of train/, val/ and test/ with such; or csv(labels.csv, image=file, label=label).
    out
        Folder for findings.parquet, findings.csv and audit.html; nothing is written without it.
    strict
        End with exit code 1 where one picture stands on two sides or has different labels.
    against
        A second source of the same files, such as a folder beside a table, whose labels are compared.
    backbone
        A timm model, whose features tell near copies and improbable labels.
    weights
        pretrained, none for random ones, or a .safetensors or .pth file.
    image_size
        Side of the backbone's input in pixels; by default the pretrained one.
    val
        Share of each class that training would validate with, where the data has no val/ folder.
    seed
        Settles which pictures those are.
    cache
        Folder that keeps the backbone's features; by default visionadapt in the user's cache folder.
    """
    how = {"backbone": backbone, "weights": weights, "image_size": image_size, "val": val, "seed": seed, "cache": cache}
    grave = _look(source, against, out, output or OutputOptions(), device=device, workers=workers, **how)
    return 1 if strict and grave else 0


def _look(source: str, against: str | None, out: str | None, output: OutputOptions, **how: Any) -> bool:
    """Audit, tell and write; whether there is something grave."""
    from visionadapt.auditing import audit, summary, write_audit
    from visionadapt.core.records import manifest_of
    from visionadapt.data.loading import choose_workers
    from visionadapt.sources.opening import open_source

    reporter = output.reporter()
    manifest = manifest_of(open_source(source))
    other = open_source(against) if against is not None else None
    how["workers"] = choose_workers(how["workers"], len(manifest))
    found = audit(manifest, other, progress=reporter.progress, **how)
    reporter.table("audit", summary(found))
    if out is not None:
        write_audit(out, found)
        reporter.say(f"page and tables: {out}")
        reporter.answer(out)
    reporter.event("audit", {"out": out, "grave": found.grave, **summary(found)})
    return bool(found.grave)


if __name__ == "__main__":
    shell.main(app)
