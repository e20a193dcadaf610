"""`python -m visionadapt.audit SOURCE`: inspect a data set before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from visionadapt.auditing.settings import AuditSettings
from visionadapt.commands import shell
from visionadapt.run_folder.options import COMPUTATION, Exclude, Flag, OutputOptions

if TYPE_CHECKING:
    pass

app = shell.app(
    "audit",
    "python -m visionadapt.audit photos",
    "python -m visionadapt.audit 'csv(labels.csv, image=file, label=label)' --out audits/labels",
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
    exclude: Exclude = None,
    settings: Annotated[AuditSettings | None, Parameter(name="*", group=COMPUTATION)] = None,
    output: OutputOptions | None = None,
) -> int:
    """Inspect a data set: duplicates across splits, labels worth checking, broken files, unusual images.

    Parameters
    ----------
    source
        Folder of class folders (or of train/, val/, test/ with such), or csv(labels.csv, image=file, label=label).
    out
        Folder for audit.html, findings.csv and findings.parquet; by default the next free one below audits/.
    strict
        Exit with code 1 if an image is in two splits or has different labels.
    against
        Second source of the same files, such as a folder next to a table, whose labels are compared.
    exclude
        The findings.csv of an audit, with drop or relabel in its column action for rows to leave out or correct.
    """
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.auditing import audit, summary, write_audit
    from visionadapt.commands.resolving import audit_folder
    from visionadapt.sources.edited import edited_rows
    from visionadapt.sources.opening import open_source

    chosen = open_source(source)
    folder = audit_folder(chosen, out)
    rows = edited_rows(chosen, exclude, reporter.say)
    found = audit(rows, against, settings=settings, progress=reporter.progress)
    page = str(write_audit(folder, found))
    reporter.table("audit", {**summary(found), "page": page})
    reporter.event("audit", {"out": str(folder), "page": page, "grave": found.errors, **summary(found)})
    reporter.answer(page)
    return 1 if strict and found.errors else 0


if __name__ == "__main__":
    shell.main(app)
