"""The usable rows of an audit: what was read of each, its labels, its split and its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.scan import FileFacts
from visionadapt.core.records import Manifest


@dataclass(frozen=True)
class UsableRows:
    """Rows whose image can be used, N of them.

    Attributes:
        keys: names of the rows.
        files: what was read of each; `files[i].finding.index` is its index in the audited manifest.
        labels: class names of each.
        splits: train, val or test; None where the rows are not split.
        groups: rows of one group belong in one split; None where a row has no group.
    """

    keys: Sequence[str]
    files: Sequence[FileFacts]
    labels: Sequence[tuple[str, ...]]
    splits: Sequence[str | None]
    groups: Sequence[str | None]

    @classmethod
    def of(cls, manifest: Manifest, files: Sequence[FileFacts], splits: Sequence[str | None]) -> UsableRows:
        """Select the usable rows; `files` and `splits` describe every row of the manifest."""
        usable = [file for file in files if file.usable]
        indices = [file.finding.index for file in usable]
        return cls(
            keys=[manifest.key(index) for index in indices],
            files=usable,
            labels=[manifest[index].labels for index in indices],
            splits=[splits[index] for index in indices],
            groups=[manifest.group(index) for index in indices],
        )

    def __len__(self) -> int:
        return len(self.files)

    def label(self, row: int) -> str:
        """Labels of a row as one string."""
        return "; ".join(self.labels[row])

    def finding(
        self, kind: str, row: int, detail: str, score: float | None = None, other: int | None = None
    ) -> AuditFinding:
        """Make a finding about a row, or about two."""
        index = self.files[row].finding.index
        if other is None:
            return AuditFinding(kind, self.keys[row], "", self.label(row), detail, score, index)
        other_index = self.files[other].finding.index
        return AuditFinding(kind, self.keys[row], self.keys[other], self.label(row), detail, score, index, other_index)
