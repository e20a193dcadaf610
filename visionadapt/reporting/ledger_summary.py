"""What became of a run's rows, in short: used, repaired, rejected, and copies that look suspicious."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visionadapt.run_folder.ledger import LEDGER, ledger_rows

MOST_COMPARED = 1_000_000
"""Files among which equal ones are looked for: each costs some hundred bytes of memory."""
_EXAMPLES = 5


@dataclass
class Kind:
    """Rows of which the same is to be told: how many, and the first few of them as (file, detail)."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, file: str, detail: str = "") -> None:
        """Count one more row."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((file, detail))


@dataclass(frozen=True)
class RowFacts:
    """What a ledger says.

    Attributes:
        statuses: how many rows of a part (`train`, `val`) ended how (`used`, `repaired`, `rejected`).
        training_pictures: how many usable training pictures a class has.
        rejected: by reason, numbers left out; the examples' detail is the whole reason.
        repaired: by repair, numbers left out; the examples' detail is the whole repair.
        suspicious: by what is suspicious; the examples' detail is the file that it equals.
        validation_files: usable validation files, in order.
    """

    statuses: Mapping[str, Counter[str]]
    training_pictures: Counter[str]
    rejected: Mapping[str, Kind]
    repaired: Mapping[str, Kind]
    suspicious: Mapping[str, Kind]
    validation_files: tuple[str, ...]


def read_rows(run: Path) -> RowFacts | None:
    """Read the ledger of a run once, in the order of its rows; None where it has none.

    Raises:
        RunError: it is damaged.
    """
    if not (run / LEDGER).exists():
        return None
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    training: Counter[str] = Counter()
    rejected: defaultdict[str, Kind] = defaultdict(Kind)
    repaired: defaultdict[str, Kind] = defaultdict(Kind)
    copies = _Copies()
    validation = []
    for row in ledger_rows(run, ("file", "part", "labels", "status", "repairs", "reason", "sha256")):
        statuses[row["part"]][row["status"]] += 1
        if row["status"] == "rejected":
            rejected[_without_numbers(row["reason"])].add(row["file"], row["reason"])
            continue
        for repair in row["repairs"]:
            repaired[_without_numbers(repair)].add(row["file"], repair)
        if row["part"] == "train":
            training.update(row["labels"])
        else:
            validation.append(row["file"])
        copies.add(row["file"], row["part"], tuple(row["labels"]), row["sha256"])
    return RowFacts(statuses, training, _frequent(rejected), _frequent(repaired), copies.kinds, tuple(validation))


class _Copies:
    """Finds files of the same bytes."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self._first: dict[bytes, tuple[str, str, tuple[str, ...]]] = {}

    def add(self, file: str, part: str, labels: tuple[str, ...], sha256: str) -> None:
        """Take in the next row."""
        digest = bytes.fromhex(sha256)[:16]
        if digest not in self._first:
            if len(self._first) < MOST_COMPARED:
                self._first[digest] = (file, part, labels)
            return
        other, other_part, other_labels = self._first[digest]
        what = "equal files within a part"
        if part != other_part:
            what = "equal files in training and validation: they flatter the figures"
        if labels != other_labels:
            what = "equal files under different classes: one of them is wrong"
        self.kinds.setdefault(what, Kind()).add(file, other)


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d[\d,.]*", "…", reason)


def _frequent(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    return dict(sorted(kinds.items(), key=lambda item: -item[1].count))
