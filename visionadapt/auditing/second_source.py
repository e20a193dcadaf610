"""Compare the labels of two sources of the same files: where they disagree, one of them is wrong."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.scan import FileFacts
from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError


def compare(manifest: Manifest, files: Sequence[FileFacts], theirs: Manifest) -> Iterator[AuditFinding]:
    """Report rows whose file has another label in the other source, and files that only one of the two has.

    Files are matched by their bytes. Labels that differ only in case, spaces, hyphens and underscores are equal, unless
    one source has two such classes. Rows without a label and unreadable files are ignored.
    """
    other = theirs.source
    name = _naming(manifest.classes, theirs.classes)
    there = _by_content(theirs)
    seen: set[str] = set()
    for file in files:
        record = manifest[file.finding.index]
        content = file.finding.sha256 or _content(manifest, file.finding.index)
        seen.add(content)
        if not content:
            continue
        labels = "; ".join(record.labels)
        if content not in there:
            detail = f"{other} has no file of these bytes"
            yield AuditFinding("only_here", record.key, "", labels, detail, index=file.finding.index)
            continue
        rows = [theirs[index] for index in there[content]]
        contrary = [row for row in rows if row.labels and {*map(name, row.labels)} != {*map(name, record.labels)}]
        if record.labels and contrary and len(contrary) == sum(bool(row.labels) for row in rows):
            detail = f"labelled {labels!r} here, and {'; '.join(contrary[0].labels)!r} in {other}"
            yield AuditFinding("conflict", record.key, contrary[0].key, labels, detail, 1.0, file.finding.index)
    for content, places in there.items():
        if content not in seen:
            record = theirs[places[0]]
            detail = f"only in {other}"
            yield AuditFinding("unlisted", record.key, "", "; ".join(record.labels), detail)


def _by_content(manifest: Manifest) -> Mapping[str, list[int]]:
    """Row indices by the SHA-256 of their files; unreadable files are left out."""
    found: dict[str, list[int]] = {}
    for index in range(len(manifest)):
        content = _content(manifest, index)
        if content:
            found.setdefault(content, []).append(index)
    return found


def _content(manifest: Manifest, index: int) -> str:
    """SHA-256 of a row's file, also of a dropped row; empty if it cannot be read."""
    try:
        return hashlib.sha256(manifest.read(index)).hexdigest()
    except ImageError:
        return ""


def _naming(*sources: Iterable[str]) -> Callable[[str], str]:
    """Return how class names are compared: loosely, or exactly where that would merge two classes of one source."""
    for names in map(tuple, sources):
        if len({_loose(name) for name in names}) < len(names):
            return lambda name: name
    return _loose


def _loose(name: str) -> str:
    return (
        "".join(character for character in unicodedata.normalize("NFKC", name).casefold() if character.isalnum())
        or name
    )
