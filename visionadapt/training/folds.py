"""Assign rows to folds of a cross-validation, so that copies and groups stay together and classes are spread evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from visionadapt.core.naming import stable_hash

FOLDS = 5

Integers = npt.NDArray[np.int64]


def assign_folds(labels: Integers, clusters: Sequence[Hashable], keys: Sequence[str], folds: int = FOLDS) -> Integers:
    """Assign each row to a fold, int64 [N], so that a cluster's rows share one and each class is spread evenly.

    The largest clusters come first, then in the order of their first row's hash; each goes where its class has the
    fewest rows so far.
    """
    members: dict[Hashable, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    sizes: Counter[tuple[int, int]] = Counter()
    result = np.zeros(len(labels), np.int64)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), stable_hash("fold", keys[rows[0]]))):
        label = int(labels[rows[0]])
        fold = min(range(folds), key=lambda fold: (sizes[label, fold], sizes[-1, fold], fold))
        for row in rows:
            result[row] = fold
            sizes[int(labels[row]), fold] += 1
            sizes[-1, fold] += 1
    return result
