"""Findings about equal and nearly equal images: duplicates, leaks, conflicts, copies in two groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.equal_files import Originals
from visionadapt.auditing.features import Told
from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.near_duplicates import Pairs, near_pairs
from visionadapt.auditing.rows import UsableRows
from visionadapt.auditing.scan import hashes, lumas
from visionadapt.auditing.splits import SPLITS


class Clusters:
    """Disjoint sets of rows that are copies of one another (R. E. Tarjan, 1975, with path halving)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, row: int) -> int:
        """Return the lowest row of a row's cluster."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        """Merge the clusters of two rows."""
        first, second = sorted((self.of(first), self.of(second)))
        self._parent[second] = first


def find_duplicates(
    rows: UsableRows, features: npt.NDArray[np.float32], progress: Told
) -> tuple[Clusters, list[AuditFinding]]:
    """Compare all images; return the clusters of copies and the findings.

    Args:
        rows: N usable rows.
        features: pooled features float32 [N, D].
        progress: opens a progress display.
    """
    clusters = Clusters(len(rows))
    # 1) equal images
    together = _equal_rows(rows)
    for members in together:
        for row in members[1:]:
            clusters.join(members[0], row)
    findings = list(_equal_findings(rows, together))
    # 2) nearly equal images; those of one colour resemble each other without being copies
    near = _NearDuplicates(rows, clusters)
    varied = np.array([row for row, file in enumerate(rows.files) if not file.blank], np.int64)
    files = [rows.files[row] for row in varied]
    features = features if len(varied) == len(rows) else features[varied]
    with progress("pairs") as done:
        for pairs in near_pairs(hashes(files), lumas(files), features, progress=done):
            near.add(pairs._replace(first=varied[pairs.first], second=varied[pairs.second]))
    return clusters, [*findings, *near.findings()]


def _equal_rows(rows: UsableRows) -> list[list[int]]:
    """Rows with the same pixels, one list per image that occurs more than once, in order."""
    together: dict[int, list[int]] = {}
    originals = Originals[int]()
    for row, file in enumerate(rows.files):
        first = originals.of(file.digest, row)
        if first is not None:
            together.setdefault(first, [first]).append(row)
    return [together[first] for first in sorted(together)]


def _equal_findings(rows: UsableRows, together: Iterable[Sequence[int]]) -> Iterator[AuditFinding]:
    """Report each copy once, with the first row of the same image, and what follows from it."""
    for members in together:
        for row in members[1:]:
            same = rows.files[row].finding.sha256 == rows.files[members[0]].finding.sha256
            kind, detail = ("exact_duplicate", "equal byte by byte") if same else ("same_pixels", "equal pixels")
            yield rows.finding(kind, row, detail, 1.0, members[0])
        for kind, row, other in _consequences(rows, members):
            yield rows.finding(kind, row, f"equal images, {_difference(rows, kind, row, other)}", 1.0, other)


def _consequences(rows: UsableRows, members: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Leaks, conflicts and divided groups among rows with the same image: (kind, row, row it is compared with)."""
    split = sorted((row for row in members if rows.splits[row]), key=lambda row: SPLITS.index(str(rows.splits[row])))
    yield from (("leak", row, split[0]) for row in split if rows.splits[row] != rows.splits[split[0]])
    labelled = [row for row in members if rows.labels[row]]
    if labelled:
        usual = Counter(frozenset(rows.labels[row]) for row in labelled).most_common(1)[0][0]
        first = next(row for row in labelled if frozenset(rows.labels[row]) == usual)
        yield from (("conflict", row, first) for row in labelled if frozenset(rows.labels[row]) != usual)
    grouped = [row for row in members if rows.groups[row] is not None]
    yield from (("across_groups", row, grouped[0]) for row in grouped if rows.groups[row] != rows.groups[grouped[0]])


def _difference(rows: UsableRows, kind: str, row: int, other: int) -> str:
    if kind == "leak":
        return f"one in {rows.splits[row]}, one in {rows.splits[other]}"
    if kind == "conflict":
        return f"labelled {rows.label(row)!r} and {rows.label(other)!r}"
    return f"one in group {rows.groups[row]!r}, one in {rows.groups[other]!r}"


class _NearDuplicates:
    """Collects near pairs, for each row and kind of finding only the nearest, so that memory stays bounded."""

    def __init__(self, rows: UsableRows, clusters: Clusters) -> None:
        self._rows, self._clusters = rows, clusters
        self._nearest = {kind: _Nearest(len(rows)) for kind in _COMPARED}
        self._codes = {kind: _codes(values(rows)) for kind, values in _COMPARED.items()}

    def add(self, pairs: Pairs) -> None:
        """Take in some pairs, but for rows with equal images, which are found already."""
        images = self._codes["near_duplicate"]
        pairs = pairs.where(images[pairs.first] != images[pairs.second])
        for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
            self._clusters.join(first, second)
        for kind, codes in self._codes.items():
            one, two = codes[pairs.first], codes[pairs.second]
            self._nearest[kind].offer(pairs.where((one != two) & (one >= 0) & (two >= 0)))

    def findings(self) -> Iterator[AuditFinding]:
        """Yield each pair once; of a leak, the row outside the training split comes first."""
        rows = self._rows
        for kind, nearest in self._nearest.items():
            for other, row, score, mirrored in nearest.pairs():
                if kind == "leak":
                    row, other = sorted((row, other), key=lambda row: -SPLITS.index(str(rows.splits[row])))
                how = ", mirrored" if mirrored else ""
                seen = f"nearly the same image{how} ({100 * score:.0f} % of their fine detail agrees)"
                detail = seen if kind == "near_duplicate" else f"{seen}, {_difference(rows, kind, row, other)}"
                yield rows.finding(kind, row, detail, score, other)


class _Nearest:
    """The partner of each row with the highest score."""

    def __init__(self, count: int) -> None:
        self._score = np.full(count, -np.inf, np.float32)
        self._partner = np.full(count, -1, np.int64)
        self._mirrored = np.zeros(count, np.bool_)

    def offer(self, pairs: Pairs) -> None:
        row = np.concatenate([pairs.first, pairs.second])
        partner = np.concatenate([pairs.second, pairs.first])
        score, mirrored = (np.concatenate([part, part]) for part in (pairs.score, pairs.mirrored))
        order = np.argsort(-score, kind="stable")
        row, places = np.unique(row[order], return_index=True)
        score, partner, mirrored = score[order][places], partner[order][places], mirrored[order][places]
        better = score > self._score[row]
        self._score[row[better]], self._partner[row[better]] = score[better], partner[better]
        self._mirrored[row[better]] = mirrored[better]

    def pairs(self) -> list[tuple[int, int, float, bool]]:
        """(first, second, score, whether one is mirrored) of each pair, first < second."""
        found = {
            (min(row, partner), max(row, partner)): (float(self._score[row]), bool(self._mirrored[row]))
            for row, partner in enumerate(self._partner.tolist())
            if partner >= 0
        }
        return [(*pair, *seen) for pair, seen in sorted(found.items())]


_COMPARED: dict[str, Callable[[UsableRows], Sequence[object]]] = {
    "near_duplicate": lambda rows: [file.digest for file in rows.files],
    "leak": lambda rows: rows.splits,
    "conflict": lambda rows: [frozenset(labels) or None for labels in rows.labels],
    "across_groups": lambda rows: rows.groups,
}
"""What must differ between two near duplicates for a finding of each kind; None never differs."""


def _codes(values: Iterable[object]) -> npt.NDArray[np.int64]:
    """A number for each different value; −1 for None."""
    known: dict[object, int] = {}
    return np.array([-1 if value is None else known.setdefault(value, len(known)) for value in values], np.int64)
