"""Confident learning on numbers worked by hand; the probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from visionadapt.auditing.label_errors import confident_joint, suspicious
from visionadapt.auditing.probe import out_of_fold
from visionadapt.training.solved_head import PENALTIES

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


@pytest.mark.slow
def test_the_probe_is_logistic_regression_with_the_penalty_that_its_own_folds_choose() -> None:
    """Against scikit-learn over the same penalties, on features scaled by √(σ² + σ̄²) · √D of all rows."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 150)
    features = (generator.normal(size=(3, 8))[labels] + 1.5 * generator.normal(size=(150, 8))).astype(np.float32)
    folds = np.arange(150) % 3
    variance = features.var(axis=0)
    scaled = (features - features.mean(axis=0)) / np.sqrt((variance + variance.mean()) * 8)
    candidates = []
    for penalty in PENALTIES:
        expected = np.zeros((150, 3))
        for fold in range(3):
            train = folds != fold
            reference = LogisticRegression(C=1 / (2 * penalty * train.sum()), max_iter=2000, tol=1e-8)
            reference.fit(scaled[train], labels[train])
            expected[~train] = reference.predict_proba(scaled[~train])
        candidates.append((-np.log(expected[np.arange(150), labels]).mean(), penalty, expected))
    _, _, expected = min(candidates, key=lambda each: each[0])
    assert np.abs(out_of_fold(features, labels, folds, 3) - expected).max() < 2e-3
