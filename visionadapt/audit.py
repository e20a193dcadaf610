"""`python -m visionadapt.audit SOURCE`: inspect a data set before training."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from visionadapt.auditing.settings import AuditSettings
from visionadapt.commands import shell
from visionadapt.run_folder.options import COMPUTATION, Flag, OutputOptions

app = shell.app(
    "audit",
    "python -m visionadapt.audit photos",
    "python -m visionadapt.audit 'csv(labels.csv, image=file, label=label)' --out audit",
    "python -m visionadapt.audit photos --against 'csv(labels.csv, image=file, label=label)' --strict",
)


@app.default
def main(
    source: str,
    /,
    *,
    out: str | None = None,
    strict: Flag = False,
    against: str | None = None,
    settings: Annotated[AuditSettings | None, Parameter(name="*", group=COMPUTATION)] = None,
    output: OutputOptions | None = None,
) -> int:
    """Inspect a data set: duplicates across splits, wrong labels, broken files, unusual images.

    Parameters
    ----------
    source
        Folder of class folders (or of train/, val/, test/ with such), or csv(labels.csv, image=file, label=label).
    out
        Folder for findings.parquet, findings.csv and audit.html; nothing is written without it.
    strict
        Exit with code 1 if an image is in two splits or has different labels.
    against
        Second source of the same files, such as a folder next to a table, whose labels are compared.
    """
    from visionadapt.auditing import audit, summary, write_audit

    reporter = (output or OutputOptions()).reporter()
    found = audit(source, against, settings=settings, progress=reporter.progress)
    reporter.table("audit", summary(found))
    if out is not None:
        write_audit(out, found)
        reporter.say(f"page and tables: {out}")
        reporter.answer(out)
    reporter.event("audit", {"out": out, "grave": found.errors, **summary(found)})
    return 1 if strict and found.errors else 0


if __name__ == "__main__":
    shell.main(app)
