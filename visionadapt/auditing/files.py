"""Findings about single files and rows: missing, empty, unreadable, misnamed, unlisted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.scan import FileFacts, expected_form
from visionadapt.core.records import Manifest, NotedSource, Record, Source
from visionadapt.sources import TableSource
from visionadapt.sources.arguments import several
from visionadapt.sources.walk import is_image, walk
from visionadapt.system.storage import MISSING


def file_findings(manifest: Manifest, files: Iterable[FileFacts]) -> Iterator[AuditFinding]:
    """Report what is wrong with each row's file."""
    for file in files:
        record = manifest[file.finding.index]
        for kind, detail in _problems(record, file):
            yield AuditFinding(kind, record.key, "", "; ".join(record.labels), detail, index=file.finding.index)


def repeated_rows(manifest: Manifest) -> Iterator[AuditFinding]:
    """Report conflicts among rows that name the same file: rows whose labels differ from those of the first."""
    first: dict[str, int] = {}
    for index, record in enumerate(manifest):
        if not record.labels:
            continue
        other = first.setdefault(record.location or record.key, index)
        before = manifest[other]
        if set(record.labels) != set(before.labels):
            labels = "; ".join(record.labels)
            detail = f"two rows name the same file, labelled {labels!r} and {'; '.join(before.labels)!r}"
            yield AuditFinding("conflict", record.key, before.key, labels, detail, 1.0, index, other)


def source_findings(source: Source) -> Iterator[AuditFinding]:
    """Report what the source tells about what it took and left out."""
    if isinstance(source, NotedSource):
        yield from (AuditFinding("source", str(source), detail=line) for line in source.notes())


def unlisted_files(source: Source, records: Iterable[Record]) -> Iterator[AuditFinding]:
    """Report images below a table's folder that no row names; other sources have none."""
    if not isinstance(source, TableSource) or source.holds_images:
        return
    above, folders = source.folders
    tables = " or ".join(dict.fromkeys(Path(path).name for path in several(source.path)))
    named = {record.location or record.key for record in records}
    for found in (found for folder in folders for found in walk(above, folder)):
        if found.problem is None and found.location not in named and is_image(found.location):
            yield AuditFinding("unlisted", found.location, detail=f"no row of {tables} names it")


def _problems(record: Record, file: FileFacts) -> Iterator[tuple[str, str]]:
    """Yield (kind, detail) of each problem."""
    problem = file.finding.problem
    if problem is not None:
        yield _rejected(record, file, problem), problem
        return
    promised = expected_form(record.key)
    if promised and promised != file.form:
        yield "wrong_extension", f"named like {promised}, but is {file.form}"
    if file.finding.repairs:
        yield "repaired", "; ".join(file.finding.repairs)
    if file.blank:
        yield "blank", f"{file.width}×{file.height} pixels of a single colour"


def _rejected(record: Record, file: FileFacts, problem: str) -> str:
    if problem.startswith(MISSING):
        return "missing"
    if record.problem is not None:
        return "refused"
    return "empty" if file.read and file.size == 0 else "unreadable"
