"""An audit as files, and as the few lines that fit on a screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visionadapt.auditing.audit import Audit
from visionadapt.auditing.findings import KINDS, write_tables
from visionadapt.auditing.page import page
from visionadapt.errors import RunError
from visionadapt.system.storage import write_text
from visionadapt.system.text import terminal_safe

_NAMED = 2


def write_audit(out: str | Path, audit: Audit) -> None:
    """Write `findings.parquet`, `findings.csv` and `audit.html`.

    Raises:
        RunError: the folder cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
    write_tables(folder, audit.findings)
    write_text(folder / "audit.html", page(audit))


def summary(audit: Audit) -> Mapping[str, str]:
    """What a person should know first: a name and a line each."""
    lines = {
        "pictures": f"{audit.usable:,} of {len(audit.manifest):,} rows, {len(audit.makeup.classes):,} classes",
        "parts": f"{', '.join(audit.makeup.parts) or 'none'}: {audit.division}",
    }
    for name, three in audit.makeup.quantiles.items():
        low, middle, high = (f"{value:.2f}" if name == "aspect ratio" else f"{value:,.0f}" for value in three)
        lines[name] = f"{low} to {high}, median {middle}"
    for kind, about in KINDS.items():
        found = [finding for finding in audit.findings if finding.kind == kind]
        if found:
            some = "; ".join(f"{item.file} = {item.other}" if item.other else item.file for item in found[:_NAMED])
            lines[f"{about.severity}: {about.title.lower()}"] = f"{len(found):,} (such as {some})"
    if audit.probed is not None:
        lines["linear probe, out of fold"] = f"{audit.probed:.1%} right; about {audit.wrong_labels:,} wrong labels"
    if audit.policies is not None:
        lines["recommended --resize"] = f"{audit.policies.recommended}: {audit.policies.reason}"
    return {name: terminal_safe(line, one_line=True) for name, line in lines.items()}
