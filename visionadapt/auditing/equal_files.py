"""Detect equal files by a digest: one detector for the audit, the report, and the check before training."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding

Harm = Literal["conflict", "leak"]
Item = TypeVar("Item")

_WARNINGS: dict[Harm, str] = {
    "leak": "held-out files are exact copies of files in another split, which inflates the validation metrics",
    "conflict": "files are exact copies of files with another label",
}


class LabelledFile(NamedTuple):
    """A row's name, its split and its labels: what decides whether a copy of it does harm."""

    name: str
    split: str
    labels: frozenset[str]


class Originals(Generic[Item]):
    """Remembers the first item with each digest.

    Args:
        most: how many different digests to remember; all by default.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._first: dict[Hashable, Item] = {}

    def of(self, digest: Hashable, item: Item) -> Item | None:
        """Return the first item with a digest; remember `item` and return None if there has been none."""
        if digest in self._first:
            return self._first[digest]
        if self._most is None or len(self._first) < self._most:
            self._first[digest] = item
        return None


def harms(copy: LabelledFile, original: LabelledFile) -> Iterator[Harm]:
    """Yield what makes a copy harmful: a `conflict` of labels, a `leak` between splits. Unlabelled rows conflict with
    none.
    """
    if copy.labels != original.labels and copy.labels and original.labels:
        yield "conflict"
    if copy.split != original.split:
        yield "leak"


def quick(splits: Mapping[str, tuple[Manifest, Sequence[Finding]]]) -> tuple[str, ...]:
    """Return a warning for each kind of harmful copy in data about to be trained on; empty where there is none.

    Files are copies where their SHA-256 is equal; `compute_features` has computed it already.

    Args:
        splits: rows of each split, such as `train`, and the finding of each row.
    """
    found: dict[Harm, list[tuple[str, str]]] = {harm: [] for harm in _WARNINGS}
    originals = Originals[LabelledFile]()
    for digest, copy in _usable(splits):
        original = originals.of(digest, copy)
        if original is not None:
            for harm in harms(copy, original):
                found[harm].append((copy.name, original.name))
    return tuple(
        f"{len(pairs):,} {_WARNINGS[harm]} (such as {' and '.join(pairs[0])}); python -m visionadapt.audit lists them"
        for harm, pairs in found.items()
        if pairs
    )


def _usable(splits: Mapping[str, tuple[Manifest, Sequence[Finding]]]) -> Iterator[tuple[str, LabelledFile]]:
    for split, (manifest, findings) in splits.items():
        for finding in findings:
            if finding.problem is None and finding.sha256:
                labels = frozenset(manifest[finding.index].labels)
                yield finding.sha256, LabelledFile(manifest.key(finding.index), split, labels)
