"""Folds for choosing a penalty: clusters stay together, classes are spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.training.folds import assign_folds

pytestmark = pytest.mark.slow


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=5, max_size=120))
def test_folds_keep_clusters_together_and_classes_even(rows: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    clusters = [cluster for _, cluster in rows]
    keys = [f"{place}.png" for place in range(len(rows))]
    folds = assign_folds(labels, clusters, keys)
    for cluster in set(clusters):
        assert len({int(fold) for fold, own in zip(folds, clusters, strict=True) if own == cluster}) == 1
    alone = assign_folds(labels, range(len(rows)), keys)
    for label in set(labels.tolist()):
        counts = np.bincount(alone[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(alone, minlength=5)
    assert sizes.max() - sizes.min() <= len(set(labels.tolist()))
