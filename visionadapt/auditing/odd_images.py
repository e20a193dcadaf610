"""Findings about photographs of doubtful quality and of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.rows import UsableRows

BLURRED = 0.02
DARK, LIGHT = 0.32, 0.95
LOW_ENTROPY = 1.5
FENCE, TIMES = 3.0, 2.0

_USUAL = 0.5
"""Share of the images above which a property is that of the data set, and not reported (as cleanvision does)."""

Found = Mapping[str, Sequence[tuple[int, str, float]]]


def quality_findings(rows: UsableRows) -> Iterator[AuditFinding]:
    """Report images that are blurred, dark, light, nearly empty or of an odd size, unless most images are."""
    for kind, found in {**_odd_sizes(rows), **_odd_qualities(rows)}.items():
        if len(found) <= _USUAL * len(rows):
            for row, detail, degree in found:
                yield rows.finding(kind, row, detail, degree)


def _odd_qualities(rows: UsableRows) -> Found:
    """(row, detail, degree) of each odd image by kind; images of a single colour are not among them."""
    found: dict[str, list[tuple[int, str, float]]] = {"blurred": [], "dark": [], "light": [], "low_information": []}
    for row, file in enumerate(rows.files):
        seen = file.quality
        if seen is None or file.blank:
            continue
        if seen.sharpness < BLURRED:
            detail = f"its sharpness is {100 * seen.sharpness / BLURRED:.0f} % of the limit for blur"
            found["blurred"].append((row, detail, 1 - seen.sharpness / BLURRED))
        if seen.brightest < DARK:
            detail = f"99 % of the pixels have at most {100 * seen.brightest:.0f} % of full brightness"
            found["dark"].append((row, detail, 1 - seen.brightest / DARK))
        if seen.darkest > LIGHT:
            detail = f"95 % of the pixels have at least {100 * seen.darkest:.0f} % of full brightness"
            found["light"].append((row, detail, seen.darkest))
        if seen.entropy < LOW_ENTROPY:
            found["low_information"].append((row, f"entropy {seen.entropy:.2f} of 8 bits", 1 - seen.entropy / 8))
    return found


def _odd_sizes(rows: UsableRows) -> Found:
    """Images whose size is beyond Tukey's outer fences (three interquartile ranges), and twice the median or half."""
    sizes = np.sqrt([float(file.width) * file.height for file in rows.files])
    if not len(sizes):
        return {}
    low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75))
    reach = FENCE * (high - low)
    odd = (sizes < np.minimum(low - reach, middle / TIMES)) | (sizes > np.maximum(high + reach, middle * TIMES))
    found = []
    for row in np.flatnonzero(odd).tolist():
        file, times = rows.files[row], float(sizes[row] / middle)
        detail = f"{file.width}×{file.height} pixels, {times:.2g} times the median size (square root of the area)"
        found.append((row, detail, max(times, 1 / times)))
    return {"odd_size": found}
