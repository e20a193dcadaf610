"""From pairs of equal and nearly equal pictures to findings: copies, leaks, conflicts, pictures in two groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.near_duplicates import Pairs
from visionadapt.auditing.scan import Facts

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Rows:
    """What copies are judged by: usable rows, each with its facts, labels, part and group.

    Attributes:
        keys: names of the rows.
        facts: what is to be seen of each; `facts[i].finding.index` is its place in the audited manifest.
        labels: class names of each.
        parts: train, val or test; None where the rows are not divided.
        groups: what must not be divided; None where a row has no group.
    """

    keys: Sequence[str]
    facts: Sequence[Facts]
    labels: Sequence[tuple[str, ...]]
    parts: Sequence[str | None]
    groups: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.facts)

    def label(self, row: int) -> str:
        """The labels of a row as one text."""
        return "; ".join(self.labels[row])

    def finding(self, kind: str, row: int, other: int, detail: str, score: float) -> AuditFinding:
        """A finding about two rows."""
        places = (self.facts[row].finding.index, self.facts[other].finding.index)
        return AuditFinding(kind, self.keys[row], self.keys[other], self.label(row), detail, score, *places)


class Clusters:
    """Disjoint sets of rows that are copies of one another (R. E. Tarjan, 1975, with path halving)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, row: int) -> int:
        """The row that stands for a row's cluster."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        """Make two rows' clusters one; the lower row stands for it."""
        first, second = sorted((self.of(first), self.of(second)))
        self._parent[second] = first


def equal_rows(rows: Rows) -> list[list[int]]:
    """The rows of each picture that several rows have, pixel by pixel; the order is that of the rows."""
    together: dict[str, list[int]] = {}
    for row, facts in enumerate(rows.facts):
        together.setdefault(facts.digest, []).append(row)
    return [members for members in together.values() if len(members) > 1]


def equal_findings(rows: Rows, together: Iterable[Sequence[int]]) -> Iterator[AuditFinding]:
    """What follows from pictures that several rows have: each copy is told once, beside the first of its kind."""
    for members in together:
        for row in members[1:]:
            same = rows.facts[row].finding.sha256 == rows.facts[members[0]].finding.sha256
            kind, detail = ("exact_duplicate", "equal byte by byte") if same else ("same_pixels", "equal pixels")
            yield rows.finding(kind, row, members[0], detail, 1.0)
        for kind, row, other in _consequences(rows, members):
            yield rows.finding(kind, row, other, f"equal pictures, {_difference(rows, kind, row, other)}", 1.0)


def _consequences(rows: Rows, members: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Leaks, conflicts and divided groups among rows with one picture: (kind, row, the row it is told beside)."""
    divided = sorted((row for row in members if rows.parts[row]), key=lambda row: PARTS.index(str(rows.parts[row])))
    yield from (("leak", row, divided[0]) for row in divided if rows.parts[row] != rows.parts[divided[0]])
    labelled = [row for row in members if rows.labels[row]]
    if labelled:
        usual = Counter(frozenset(rows.labels[row]) for row in labelled).most_common(1)[0][0]
        first = next(row for row in labelled if frozenset(rows.labels[row]) == usual)
        yield from (("conflict", row, first) for row in labelled if frozenset(rows.labels[row]) != usual)
    grouped = [row for row in members if rows.groups[row] is not None]
    yield from (("across_groups", row, grouped[0]) for row in grouped if rows.groups[row] != rows.groups[grouped[0]])


def _difference(rows: Rows, kind: str, row: int, other: int) -> str:
    if kind == "leak":
        return f"one in {rows.parts[row]}, one in {rows.parts[other]}"
    if kind == "conflict":
        return f"labelled {rows.label(row)!r} and {rows.label(other)!r}"
    return f"one in group {rows.groups[row]!r}, one in {rows.groups[other]!r}"


@dataclass
class NearCopies:
    """Collects near pairs: of each row the nearest one of every kind, so that no crowd of them fills the memory."""

    rows: Rows
    clusters: Clusters
    _best: dict[str, _Nearest] = field(init=False)

    def __post_init__(self) -> None:
        self._best = {kind: _Nearest(len(self.rows)) for kind in _CODES}
        self._codes = {kind: _codes(values(self.rows)) for kind, values in _CODES.items()}
        self._pictures = _codes([facts.digest for facts in self.rows.facts])

    def add(self, pairs: Pairs) -> None:
        """Take in some pairs; those of one picture are known already."""
        other = self._pictures[pairs.first] != self._pictures[pairs.second]
        pairs = Pairs(pairs.first[other], pairs.second[other], pairs.score[other])
        for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
            self.clusters.join(first, second)
        for kind, codes in self._codes.items():
            one, two = codes[pairs.first], codes[pairs.second]
            told = (one != two) & (one >= 0) & (two >= 0)
            self._best[kind].offer(Pairs(pairs.first[told], pairs.second[told], pairs.score[told]))

    def findings(self) -> Iterator[AuditFinding]:
        """Each pair once; of a leak, the row that is not trained on first."""
        for kind, nearest in self._best.items():
            for first, second, score in nearest.pairs():
                row, other = second, first
                if kind == "leak" and PARTS.index(str(self.rows.parts[first])) > PARTS.index(
                    str(self.rows.parts[second])
                ):
                    row, other = first, second
                seen = "nearly the same picture"
                detail = seen if kind == "near_duplicate" else f"{seen}, {_difference(self.rows, kind, row, other)}"
                yield self.rows.finding(kind, row, other, detail, score)


class _Nearest:
    """Of each row the partner with the highest score."""

    def __init__(self, count: int) -> None:
        self._score = np.full(count, -np.inf, np.float32)
        self._partner = np.full(count, -1, np.int64)

    def offer(self, pairs: Pairs) -> None:
        row = np.concatenate([pairs.first, pairs.second])
        partner = np.concatenate([pairs.second, pairs.first])
        score = np.concatenate([pairs.score, pairs.score])
        order = np.argsort(-score, kind="stable")
        row, places = np.unique(row[order], return_index=True)
        score, partner = score[order][places], partner[order][places]
        better = score > self._score[row]
        self._score[row[better]], self._partner[row[better]] = score[better], partner[better]

    def pairs(self) -> list[tuple[int, int, float]]:
        """(first, second, score) of each pair, first < second."""
        found = {
            (min(row, partner), max(row, partner)): float(self._score[row])
            for row, partner in enumerate(self._partner.tolist())
            if partner >= 0
        }
        return [(first, second, score) for (first, second), score in sorted(found.items())]


_CODES: dict[str, Callable[[Rows], Sequence[object]]] = {
    "near_duplicate": lambda rows: [facts.digest for facts in rows.facts],
    "leak": lambda rows: rows.parts,
    "conflict": lambda rows: [frozenset(labels) or None for labels in rows.labels],
    "across_groups": lambda rows: rows.groups,
}


def _codes(values: Iterable[object]) -> npt.NDArray[np.int64]:
    """A number for each different value; −1 for None."""
    known: dict[object, int] = {}
    return np.array([-1 if value is None else known.setdefault(value, len(known)) for value in values], np.int64)
