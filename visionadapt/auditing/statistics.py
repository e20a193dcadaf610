"""What a data set is made of: classes, sizes, modes, formats, and what is out of the ordinary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visionadapt.auditing.duplicates import PARTS, Rows
from visionadapt.auditing.findings import AuditFinding

FEW = 10
"""A class with fewer usable pictures has few."""

_IMBALANCE = 3.0
_ELONGATED = 3.0
_RARE = 0.02


@dataclass(frozen=True)
class Makeup:
    """What the usable pictures are.

    Attributes:
        classes: by class name, how many pictures each part has; rows that are not divided are under an empty name.
        quantiles: smallest, median and largest of width, height and aspect ratio (width / height), and of bytes a file.
        modes, forms: how many pictures have each mode and format, the most frequent first.
    """

    classes: Mapping[str, Mapping[str, int]]
    quantiles: Mapping[str, tuple[float, float, float]]
    modes: Mapping[str, int]
    forms: Mapping[str, int]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have pictures, in order."""
        found = {part for counts in self.classes.values() for part in counts}
        return tuple(part for part in (*PARTS, "") if part in found)


def makeup(rows: Rows, classes: Sequence[str]) -> Makeup:
    """Count and measure the usable pictures."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in classes}
    for labels, part in zip(rows.labels, rows.parts, strict=True):
        for name in labels:
            counts[name][part or ""] += 1
    measures: dict[str, list[float]] = {
        "width": [fact.width for fact in rows.facts],
        "height": [fact.height for fact in rows.facts],
        "aspect ratio": [fact.width / fact.height for fact in rows.facts],
        "bytes": [fact.size for fact in rows.facts],
    }
    return Makeup(
        classes=counts,
        quantiles={name: _three(values) for name, values in measures.items() if values},
        modes=dict(Counter(fact.mode for fact in rows.facts).most_common()),
        forms=dict(Counter(fact.form for fact in rows.facts).most_common()),
    )


def class_findings(found: Makeup) -> Iterator[AuditFinding]:
    """Classes with few pictures, none in one of the parts, and very different sizes."""
    totals = {name: sum(counts.values()) for name, counts in found.classes.items()}
    for name, total in totals.items():
        absent = [part for part in found.parts if not found.classes[name].get(part)]
        if total < FEW:
            detail = f"{total} usable pictures"
            yield AuditFinding("few_pictures", name, label=name, detail=detail, score=1 - total / FEW)
        elif absent:
            detail = f"{total} usable pictures, none in {' or '.join(absent)}"
            yield AuditFinding("few_pictures", name, label=name, detail=detail, score=0.0)
    if totals and max(totals.values()) > _IMBALANCE * max(min(totals.values()), 1):
        large, small = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
        ratio = totals[large] / max(totals[small], 1)
        detail = f"{totals[small]:,} pictures; {large!r} has {totals[large]:,}, {ratio:.1f} times as many"
        yield AuditFinding("imbalance", small, large, small, detail, ratio)


def shape_findings(rows: Rows, found: Makeup, side: int) -> Iterator[AuditFinding]:
    """Pictures that are small beside a backbone's input of `side` pixels, very long, or of a rare mode."""
    for row, fact in enumerate(rows.facts):
        size = f"{fact.width}×{fact.height} pixels"
        short, long = sorted((fact.width, fact.height))
        told = {
            "small": (2 * short < side, f"{size}, and the backbone takes {side}×{side}", side / short),
            "elongated": (long > _ELONGATED * short, f"{size}, {long / short:.1f} to 1", long / short),
            "rare_mode": (
                len(rows) * _RARE > found.modes[fact.mode],
                f"mode {fact.mode}, as {found.modes[fact.mode]} of {len(rows):,} pictures",
                None,
            ),
        }
        for kind, (applies, detail, score) in told.items():
            if applies:
                yield AuditFinding(kind, rows.keys[row], "", rows.label(row), detail, score, fact.finding.index)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0, 0.5, 1)).tolist()
    return low, middle, high
