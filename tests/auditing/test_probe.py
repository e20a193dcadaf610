"""Confident learning on numbers worked by hand; the probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from visionadapt.auditing.label_errors import confident_joint, suspicious
from visionadapt.auditing.probe import assign_folds, out_of_fold

PROBABILITIES = np.array(
    [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.6, 0.4], [0.05, 0.95]], np.float32
)
LABELS = np.array([0, 0, 0, 1, 1, 1, 1])


def test_the_confident_joint_by_hand() -> None:
    """Thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 and (0.9 + 0.7 + 0.4 + 0.95) / 4 = 0.7375.

    Labelled 0: rows 0 and 1 reach 0.6 of class 0, row 2 reaches 0.7375 of class 1: (2, 1). Labelled 1: rows 3 and 6
    count as 1, row 5 as 0, row 4 as nothing: (1, 2), scaled from 3 to 4 rows.
    """
    expected = [[2, 1], [4 / 3, 8 / 3]]
    assert confident_joint(PROBABILITIES, LABELS) == pytest.approx(np.array(expected), abs=1e-6)


def test_as_many_as_estimated_are_selected_the_least_probable_first() -> None:
    found = suspicious(PROBABILITIES, LABELS)
    assert found.estimated == round(1 + 4 / 3)
    assert found.rows.tolist() == [2, 5]


def test_correct_labels_are_not_selected() -> None:
    found = suspicious(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]], np.float32), np.array([0, 0, 1, 1]))
    assert (found.rows.tolist(), found.estimated) == ([], 0)


def test_the_probe_is_logistic_regression_on_standardised_features() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 150)
    features = (generator.normal(size=(3, 8))[labels] + 1.5 * generator.normal(size=(150, 8))).astype(np.float32)
    folds = np.arange(150) % 3
    found = out_of_fold(features, labels, folds, 3)
    for fold in range(3):
        train = folds != fold
        mean, scale = features[train].mean(axis=0), features[train].std(axis=0) * 8**0.5
        reference = LogisticRegression(C=1 / (2 * 3e-4 * train.sum()), max_iter=2000, tol=1e-8)
        reference.fit((features[train] - mean) / scale, labels[train])
        expected = reference.predict_proba((features[~train] - mean) / scale)
        assert np.abs(found[~train] - expected).max() < 5e-3


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
