"""Summary of a run's ledger: rows used, repaired and rejected, and suspicious copies."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visionadapt.auditing.equal_files import LabelledFile, Originals, harms
from visionadapt.runs.ledger import LEDGER, ledger_rows

MOST_COMPARED = 1_000_000
"""Number of different files among which equal ones are searched; each takes some hundred bytes of memory."""
_EXAMPLES = 5
_COPIES = {
    "conflict": "equal files with different classes: one label is wrong",
    "leak": "equal files in training and validation: they inflate the metrics",
    "": "equal files within a split",
}


@dataclass
class Occurrences:
    """How often something occurs in the rows, and the first rows as (file, detail)."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, file: str, detail: str = "") -> None:
        """Count one more row."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((file, detail))


@dataclass(frozen=True)
class LedgerSummary:
    """Summary of a ledger: rows by split and status, usable training images by class, reasons, repairs, equal files.

    Reasons and repairs are counted without their numbers; the detail of an example is the full one, and for a
    suspicious file the one that it equals. `validation_files` are the usable ones, in order.
    """

    statuses: Mapping[str, Counter[str]]
    training_images: Counter[str]
    rejected: Mapping[str, Occurrences]
    repaired: Mapping[str, Occurrences]
    suspicious: Mapping[str, Occurrences]
    validation_files: tuple[str, ...]


def summarise_ledger(run: Path) -> LedgerSummary | None:
    """Summarise the ledger of a run; None if it has none; raise RunError if it is damaged."""
    if not (run / LEDGER).exists():
        return None
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    training: Counter[str] = Counter()
    rejected: defaultdict[str, Occurrences] = defaultdict(Occurrences)
    repaired: defaultdict[str, Occurrences] = defaultdict(Occurrences)
    suspicious: defaultdict[str, Occurrences] = defaultdict(Occurrences)
    validation: list[str] = []
    originals = Originals[LabelledFile](MOST_COMPARED)
    for row in ledger_rows(run, ("file", "part", "labels", "status", "repairs", "reason", "sha256")):
        file, split = row["file"], row["part"]
        statuses[split][row["status"]] += 1
        if row["status"] == "rejected":
            rejected[_without_numbers(row["reason"])].add(file, row["reason"])
            continue
        for repair in row["repairs"]:
            repaired[_without_numbers(repair)].add(file, repair)
        if split == "train":
            training.update(row["labels"])
        else:
            validation.append(file)
        copy = LabelledFile(file, split, frozenset(row["labels"]))
        original = originals.of(bytes.fromhex(row["sha256"])[:16], copy)
        if original is not None:
            suspicious[_COPIES[next(harms(copy, original), "")]].add(file, original.name)
    return LedgerSummary(
        statuses, training, _frequent_first(rejected), _frequent_first(repaired), suspicious, tuple(validation)
    )


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d[\d,.]*", "…", reason)


def _frequent_first(found: Mapping[str, Occurrences]) -> dict[str, Occurrences]:
    return dict(sorted(found.items(), key=lambda item: -item[1].count))
