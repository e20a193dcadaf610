"""`audit.html`: every finding of an audit on one offline page, the most serious first, with thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from visionadapt.auditing.auditor import Audit
from visionadapt.auditing.findings import KINDS, AuditFinding
from visionadapt.html.pages import render
from visionadapt.images.thumbnails import Thumbnails

PICTURED = 30
"""Number of findings of a kind that are shown with thumbnails."""

LISTED = 100
"""Number of findings of a kind that are shown without thumbnails."""

_CLASSES = 200


def page(audit: Audit) -> str:
    """Render the page. Names and labels are escaped, as are characters that do not print."""
    classes = audit.statistics.classes
    return render(
        "visionadapt.auditing",
        "audit.html",
        audit=audit,
        source=str(audit.manifest.source),
        sections=[
            (name, KINDS[name], found, PICTURED if KINDS[name].thumbnails else LISTED)
            for name, found in audit.by_kind.items()
        ],
        rows_of=partial(_rows_of, audit, Thumbnails(audit.manifest, audit.decode)),
        about=partial(_about, audit),
        classes=list(classes.items())[:_CLASSES],
        more_classes=max(len(classes) - _CLASSES, 0),
        largest=max((sum(counts.values()) for counts in classes.values()), default=0) or 1,
    )


def _rows_of(audit: Audit, thumbnails: Thumbnails, finding: AuditFinding) -> Iterator[tuple[str, str, str]]:
    """Yield thumbnail, name and description of each row that a finding is about."""
    yield thumbnails.of(finding.index), finding.file, _about(audit, finding.index, finding.label)
    if finding.other_index >= 0:
        yield thumbnails.of(finding.other_index), finding.other, _about(audit, finding.other_index)


def _about(audit: Audit, index: int, label: str = "") -> str:
    """Describe a row by label, split and group."""
    if index < 0:
        return label
    record = audit.manifest[index]
    group = f"group {record.group}" if record.group is not None else ""
    return " · ".join(text for text in ("; ".join(record.labels), record.split or "", group) if text)
