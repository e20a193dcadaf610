"""Write an audit to files, and summarise it in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visionadapt.auditing.auditor import Audit
from visionadapt.auditing.findings import KINDS, write_tables
from visionadapt.auditing.page import page
from visionadapt.errors import RunError
from visionadapt.system.storage import write_text
from visionadapt.system.text import terminal_safe

_NAMED = 2


def write_audit(out: str | Path, audit: Audit) -> Path:
    """Write `findings.parquet`, `findings.csv` and `audit.html`; return the path of the last, the page.

    Args:
        out: folder to write to; it is created if necessary.
        audit: what to write.

    Raises:
        RunError: the folder or a file cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be created ({error.strerror}); give another --out") from error
    write_tables(folder, audit.findings)
    write_text(folder / "audit.html", page(audit))
    return folder / "audit.html"


def summary(audit: Audit) -> Mapping[str, str]:
    """Summarise an audit: names, and one line of text for each."""
    statistics = audit.statistics
    lines = {
        "images": f"{audit.usable:,} of {len(audit.manifest):,} rows, {len(statistics.classes):,} classes",
        "splits": f"{', '.join(statistics.splits) or 'none'}: {audit.split_origin}",
    }
    for name, (low, middle, high) in statistics.formatted():
        lines[name] = f"{low} to {high}, median {middle}"
    if isinstance(audit.decode.sample_range, tuple):
        black, white = audit.decode.sample_range
        lines["samples of more than 8 bits"] = f"{black:.6g} is black, {white:.6g} white; --sample-range changes it"
    for name, found in audit.by_kind.items():
        some = "; ".join(f"{item.file} = {item.other}" if item.other else item.file for item in found[:_NAMED])
        lines[f"{KINDS[name].severity}: {KINDS[name].title.lower()}"] = f"{len(found):,} (such as {some})"
    if audit.probe_accuracy is not None:
        lines["linear probe, out of fold"] = f"{100 * audit.probe_accuracy:.1f} % accuracy"
    if audit.resizing is not None:
        lines["recommended --resize"] = f"{audit.resizing.recommended}: {audit.resizing.reason}"
    return {name: terminal_safe(line, one_line=True) for name, line in lines.items()}
