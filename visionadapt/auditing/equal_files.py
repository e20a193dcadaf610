"""Detect equal files by a digest: one detector for the audit, the report, and the check before training."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding
from visionadapt.system.text import counted

Harm = Literal["conflict", "leak"]
Item = TypeVar("Item")

_WARNINGS: dict[Harm, tuple[str, str]] = {
    "leak": ("held-out file", "in another split, which inflates the validation metrics"),
    "conflict": ("file", "with another label"),
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
    return tuple(_warning(harm, pairs) for harm, pairs in found.items() if pairs)


def _warning(harm: Harm, pairs: Sequence[tuple[str, str]]) -> str:
    what, where = _WARNINGS[harm]
    one = len(pairs) == 1
    are = "is an exact copy of one" if one else "are exact copies of files"
    example = f"{'' if one else 'such as '}{' and '.join(pairs[0])}"
    told = f"{counted(len(pairs), what)} {are} {where} ({example})"
    return f"{told}; python -m visionadapt.audit lists {'it' if one else 'them'}"


def _usable(splits: Mapping[str, tuple[Manifest, Sequence[Finding]]]) -> Iterator[tuple[str, LabelledFile]]:
    for split, (manifest, findings) in splits.items():
        for finding in findings:
            if finding.problem is None and finding.sha256:
                labels = frozenset(manifest[finding.index].labels)
                yield finding.sha256, LabelledFile(manifest.key(finding.index), split, labels)
