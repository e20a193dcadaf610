"""Statistics of a data set (classes, sizes, modes, formats), and findings about what stands out in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.rows import UsableRows
from visionadapt.auditing.splits import SPLITS
from visionadapt.core.naming import near_duplicate_classes
from visionadapt.system.text import counted

FEW = 10
"""Number of usable images below which a class has few."""

_IMBALANCE = 3.0
_ELONGATED = 1 / 0.35
_RARE = 0.02


@dataclass(frozen=True)
class Statistics:
    """Statistics of the usable images.

    Attributes:
        classes: number of images by class and split; rows that are not split are counted under "".
        quantiles: smallest, median and largest width, height, aspect ratio (width / height) and file size in bytes.
        modes, forms: number of images by mode and by format, the most frequent first.
    """

    classes: Mapping[str, Mapping[str, int]]
    quantiles: Mapping[str, tuple[float, float, float]]
    modes: Mapping[str, int]
    forms: Mapping[str, int]

    @classmethod
    def of(cls, rows: UsableRows, classes: Sequence[str]) -> Statistics:
        """Count and measure the usable images."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in classes}
        for labels, split in zip(rows.labels, rows.splits, strict=True):
            for name in labels:
                counts[name][split or ""] += 1
        measures: dict[str, list[float]] = {
            "width": [file.width for file in rows.files],
            "height": [file.height for file in rows.files],
            "aspect ratio": [file.width / file.height for file in rows.files],
            "bytes": [file.size for file in rows.files],
        }
        return cls(
            classes=counts,
            quantiles={name: _extremes_and_median(values) for name, values in measures.items() if values},
            modes=dict(Counter(file.mode for file in rows.files).most_common()),
            forms=dict(Counter(file.form for file in rows.files).most_common()),
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have images, in order."""
        found = {split for counts in self.classes.values() for split in counts}
        return tuple(split for split in (*SPLITS, "") if split in found)

    def formatted(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the name of each measure with its smallest, median and largest value as text."""
        for name, values in self.quantiles.items():
            yield name, tuple(f"{value:.2f}" if name == "aspect ratio" else f"{value:,.0f}" for value in values)


def class_findings(statistics: Statistics) -> Iterator[AuditFinding]:
    """Report classes with few images or without any in one of the splits, class imbalance, and one class twice."""
    totals = {name: sum(counts.values()) for name, counts in statistics.classes.items()}
    for name, total in totals.items():
        absent = [split for split in statistics.splits if not statistics.classes[name].get(split)]
        if total < FEW:
            detail = counted(total, "usable image")
            yield AuditFinding("few_pictures", name, label=name, detail=detail, score=1 - total / FEW)
        elif absent:
            detail = f"{counted(total, 'usable image')}, none in {' or '.join(absent)}"
            yield AuditFinding("few_pictures", name, label=name, detail=detail, score=0.0)
    if totals and max(totals.values()) > _IMBALANCE * max(min(totals.values()), 1):
        large, small = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
        ratio = totals[large] / max(totals[small], 1)
        detail = f"{totals[small]:,} images; {large!r} has {totals[large]:,}, {ratio:.1f} times as many"
        yield AuditFinding("imbalance", small, large, small, detail, ratio)
    for first, *others in near_duplicate_classes(statistics.classes):
        for other in others:
            detail = f"{totals[first]:,} images; {other!r} has {totals[other]:,}"
            yield AuditFinding("near_duplicate_class", first, other, first, detail)


def shape_findings(rows: UsableRows, statistics: Statistics, side: int) -> Iterator[AuditFinding]:
    """Report images that are small for a backbone input of `side` pixels, elongated, or of a rare mode."""
    for row, file in enumerate(rows.files):
        size = f"{file.width}×{file.height} pixels"
        short, long = sorted((file.width, file.height))
        if 2 * short < side:
            yield rows.finding("small", row, f"{size}; the backbone takes {side}×{side}", side / short)
        if long > _ELONGATED * short:
            yield rows.finding("elongated", row, f"{size}, {long / short:.1f} to 1", long / short)
        alike = statistics.modes[file.mode]
        if alike < len(rows) * _RARE:
            yield rows.finding("rare_mode", row, f"mode {file.mode}, as {alike} of {len(rows):,} images")


def _extremes_and_median(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0, 0.5, 1)).tolist()
    return low, middle, high
