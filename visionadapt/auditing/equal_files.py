"""The short audit that every training makes: what the files' hashes alone say of copies in both parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding

Parts = Mapping[str, tuple[Manifest, Sequence[Finding]]]
"""By its name, such as `train`: the rows of a part, and what came of each."""


class _Seen(NamedTuple):
    part: str
    key: str
    labels: frozenset[str]


def quick(parts: Parts) -> tuple[str, ...]:
    """One line for each thing that is wrong: copies of training pictures in other parts, copies with different labels.

    Files are copies where their bytes are equal; what `compute_features` found out is all that is needed. Nothing wrong
    gives nothing.
    """
    first: dict[str, _Seen] = {}
    leaks: list[tuple[str, str]] = []
    conflicts: list[tuple[str, str]] = []
    for seen, digest in _rows(parts):
        before = first.setdefault(digest, seen)
        if before.part != seen.part:
            leaks.append((seen.key, before.key))
        if before.labels != seen.labels and before.labels and seen.labels:
            conflicts.append((seen.key, before.key))
    told = (
        (leaks, "held-out files are exact copies of files in another part, which flatters what is measured"),
        (conflicts, "files are exact copies of files with another label"),
    )
    return tuple(
        f"{len(found):,} {what} (such as {found[0][0]} and {found[0][1]}); python -m visionadapt.audit lists them"
        for found, what in told
        if found
    )


def _rows(parts: Parts) -> Iterator[tuple[_Seen, str]]:
    for part, (manifest, findings) in parts.items():
        for finding in findings:
            if finding.problem is None and finding.sha256:
                labels = frozenset(manifest[finding.index].labels)
                yield _Seen(part, manifest.key(finding.index), labels), finding.sha256
