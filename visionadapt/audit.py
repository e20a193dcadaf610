"""`python -m visionadapt.audit SOURCE`: inspect a data set before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from visionadapt.auditing.settings import AuditSettings
from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.runs.options import COMPUTATION, Exclude, Flag, OutputOptions
from visionadapt.system.text import counted

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.core.records import Source
    from visionadapt.sources.opening import RowsLike

app = shell.app(
    "audit",
    "python -m visionadapt.audit photos",
    "python -m visionadapt.audit 'csv(labels.csv, image=file, label=label)' --out audits/labels",
    "python -m visionadapt.audit photos --against 'csv(labels.csv, image=file, label=label)' --strict",
)


@Parameter(name="*", group=Group("Several machines", sort_key=2))
@dataclass(frozen=True)
class ScanOptions:
    """The scan of the files in parts."""

    shard: str | None = None
    """Only scan the files of one part, such as 3/16, into the folder --scanned."""

    scanned: str | None = None
    """Folder with the scans of all parts, from which the audit takes what it knows of the files."""

    def check(self, **others: object) -> None:
        """Raise UsageError where options do not go together; `others` are those of the audit's results."""
        from visionadapt.core.sharding import Shard

        if self.shard is None:
            return
        Shard.parse(self.shard)
        if self.scanned is None:
            raise UsageError(f"--shard {self.shard} needs --scanned, a folder for the scans of all parts")
        for name in (name for name, value in others.items() if value):
            raise UsageError(f"--{name} cannot go with --shard {self.shard}, which only scans files; leave it out")


@app.default
def main(
    source: str,
    /,
    *,
    out: str | None = None,
    strict: Flag = False,
    against: str | None = None,
    exclude: Exclude = None,
    scan: ScanOptions | None = None,
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
    scan = scan or ScanOptions()
    scan.check(out=out, strict=strict, against=against)
    reporter.announce_loading()
    from visionadapt.auditing import audit, summary, write_audit
    from visionadapt.commands.resolving import audit_folder, scan_folder
    from visionadapt.sources.edited import edited_rows
    from visionadapt.sources.opening import open_source

    chosen = open_source(source)
    if scan.shard is not None:
        return _scan(chosen, edited_rows(chosen, exclude, reporter.say), scan, settings, reporter)
    folder = audit_folder(chosen, out)
    rows = edited_rows(chosen, exclude, reporter.say)
    scanned = None if scan.scanned is None else scan_folder(chosen, scan.scanned)
    found = audit(rows, against, settings=settings, scanned=scanned, progress=reporter.progress)
    page = str(write_audit(folder, found))
    reporter.table("audit", {**summary(found), "page": page})
    reporter.event("audit", {"out": str(folder), "page": page, "grave": found.errors, **summary(found)})
    reporter.answer(page)
    return 1 if strict and found.errors else 0


def _scan(
    source: Source, rows: RowsLike, options: ScanOptions, settings: AuditSettings | None, reporter: Reporter
) -> int:
    """Scan the files of one part."""
    from visionadapt.auditing import scan_shard
    from visionadapt.commands.resolving import scan_folder

    shard, folder = str(options.shard), scan_folder(source, str(options.scanned))
    found = scan_shard(rows, shard, folder, settings=settings, progress=reporter.progress)
    reporter.say(f"{found.table}: {counted(found.rows, 'file')}, {found.rejected:,} cannot be used")
    reporter.event("scan", {"out": str(found.table), "shard": shard, "rows": found.rows, "rejected": found.rejected})
    reporter.answer(str(found.table))
    return 0


if __name__ == "__main__":
    shell.main(app)
