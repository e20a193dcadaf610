"""What is wrong with single files and rows: missing, empty, unreadable, misnamed, unlisted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.scan import Facts, expected_form
from visionadapt.core.records import Manifest, Record, Source
from visionadapt.sources import TableSource
from visionadapt.sources.walk import IMAGE_SUFFIXES, walk
from visionadapt.system.storage import MISSING


def file_findings(manifest: Manifest, facts: Iterable[Facts]) -> Iterator[AuditFinding]:
    """What is wrong with each row's own file."""
    for fact in facts:
        record = manifest[fact.finding.index]
        for kind, detail in _of_file(record, fact):
            yield AuditFinding(kind, record.key, "", "; ".join(record.labels), detail, index=fact.finding.index)


def repeated_rows(manifest: Manifest) -> Iterator[AuditFinding]:
    """Conflicts among rows that name one file: each row whose labels are not those of the file's first row."""
    first: dict[str, int] = {}
    for index, record in enumerate(manifest):
        if not record.labels:
            continue
        other = first.setdefault(record.location or record.key, index)
        before = manifest[other]
        if set(record.labels) != set(before.labels):
            labels = "; ".join(record.labels)
            detail = f"two rows name one file, labelled {labels!r} and {'; '.join(before.labels)!r}"
            yield AuditFinding("conflict", record.key, before.key, labels, detail, 1.0, index, other)


def unlisted_files(source: Source, records: Iterable[Record]) -> Iterator[AuditFinding]:
    """Pictures below a table's folder that no row names; of other sources there are none."""
    if not isinstance(source, TableSource):
        return
    root = Path(source.path).parent if source.root is None else Path(source.root)
    named = {record.location or record.key for record in records}
    for found in walk(root):
        if found.problem is None and found.location not in named and _is_picture(found.location):
            yield AuditFinding("unlisted", found.location, detail=f"no row of {Path(source.path).name} names it")


def _of_file(record: Record, fact: Facts) -> Iterator[tuple[str, str]]:
    """(kind, detail) of each thing that is wrong."""
    problem = fact.finding.problem
    if problem is not None:
        yield _rejected(record, fact, problem), problem
        return
    promised = expected_form(record.key)
    if promised and promised != fact.form:
        yield "wrong_extension", f"named like {promised}, and is {fact.form}"
    if fact.finding.repairs:
        yield "repaired", "; ".join(fact.finding.repairs)
    if fact.blank:
        yield "blank", f"{fact.width}×{fact.height} pixels of one colour"


def _rejected(record: Record, fact: Facts, problem: str) -> str:
    if problem.startswith(MISSING):
        return "missing"
    if record.problem is not None:
        return "refused"
    return "empty" if fact.read and fact.size == 0 else "unreadable"


def _is_picture(location: str) -> bool:
    return PurePosixPath(location).suffix.lower() in IMAGE_SUFFIXES
