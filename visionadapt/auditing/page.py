"""`audit.html`: every finding of an audit on one offline page, the most serious first, with thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from visionadapt.auditing.auditor import Audit
from visionadapt.auditing.findings import KINDS, AuditFinding
from visionadapt.evaluation.verdict import Verdict
from visionadapt.html.pages import render
from visionadapt.images.thumbnails import Thumbnails
from visionadapt.system.text import counted

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
        verdict=verdict(audit),
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


def verdict(audit: Audit) -> Verdict:
    """Judge a data set by its findings, and say what to do next."""
    by_severity = Counter(finding.severity for finding in audit.findings)
    errors, warnings = by_severity["error"], by_severity["warning"]
    told = []
    if errors:
        told.append(f"{counted(errors, 'finding')} would spoil the training, or make its metrics too good.")
    elif warnings:
        told.append(f"Nothing spoils the training; {counted(warnings, 'finding')} should be looked at.")
    else:
        told.append("Nothing stands out that would spoil the training.")
    steps = []
    if errors + warnings:
        what = "errors and warnings" if errors and warnings else "errors" if errors else "warnings"
        steps.append(
            f"Look at the {what} below. In findings.csv, write drop or relabel into the column action of rows to leave "
            "out or correct. That applies to the image in the column file: to change the other one, put its name "
            "there. Then train with --exclude findings.csv."
        )
    resizing = audit.resizing
    if resizing is not None and resizing.recommended != "crop":
        steps.append(f"Train with --resize {resizing.recommended}.")
    return Verdict(tuple(told), (*steps, "Train on the same source: visionadapt train FOLDER."))


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
