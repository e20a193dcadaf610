"""Labels that are measurements, such as prices and ages, which are no classes."""

from __future__ import annotations

import re

from visionadapt.core.records import Manifest
from visionadapt.errors import SplitError
from visionadapt.sources import FolderSource

MANY = 10
"""Different labels from which on whole numbers may be measurements, and numbers with decimals need more images each."""
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)


def check_not_measured(rows: Manifest) -> None:
    """Raise SplitError if the labels are numbers with too few images each to be classes.

    That is so with fewer than 3 images per number on average, if there are `MANY` or any has decimals; and with fewer
    than 10, if there are `MANY` and any has decimals. Numbers such as `2.0` have none. Folders that are named by
    numbers are classes in any case.
    """
    if isinstance(rows.source, FolderSource) and rows.source.label is None:
        return
    counts = {name: count for name, count in zip(rows.classes, rows.class_counts(), strict=True) if count}
    if len(counts) < 3 or not all(map(_NUMBER.fullmatch, counts)):
        return
    images, many = sum(counts.values()), len(counts) >= MANY
    decimals = any(not float(name.replace(",", ".")).is_integer() for name in counts)
    least = 10 if many and decimals else 3 if many or decimals else 0
    if images >= least * len(counts):
        return
    examples = ", ".join(list(counts)[:3])
    raise SplitError(
        f"{rows.source}: the labels are {len(counts):,} different numbers ({examples}, …) of {images:,} images, which "
        "look like measurements; visionadapt trains classifiers only: write a column of a few ranges, such as 0-10 and "
        "10-20, or give --task single if each number is a class"
    )
