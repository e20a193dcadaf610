"""Metrics of the confusion matrix against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionadapt.tasks import ConfusionMatrix

metrics = pytest.importorskip("sklearn.metrics")
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(PAIRS)
@pytest.mark.filterwarnings("ignore:.*y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_every_metric_is_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
    matrix = ConfusionMatrix.of(truth, predicted, 4)
    classes = [0, 1, 2, 3]
    assert matrix.counts.tolist() == metrics.confusion_matrix(truth, predicted, labels=classes).tolist()
    assert matrix.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert matrix.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=classes, zero_division=np.nan
    )
    assert matrix.precision == pytest.approx(precision, nan_ok=True)
    assert matrix.recall == pytest.approx(recall, nan_ok=True)
    assert matrix.f1 == pytest.approx(f1, nan_ok=True)
    assert matrix.support.tolist() == support.tolist()


def test_metrics_by_hand() -> None:
    """Class 0: 3 of 4 right; class 1: 1 of 2; class 2 has no images and is predicted once; class 3 is absent."""
    matrix = ConfusionMatrix.of(iter([0, 0, 0, 0, 1, 1]), iter([0, 0, 0, 1, 1, 2]), 4)
    assert matrix.counts.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.accuracy == pytest.approx(4 / 6)
    assert matrix.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert matrix.recall == pytest.approx([0.75, 0.5, math.nan, math.nan], nan_ok=True)
    assert matrix.precision == pytest.approx([1.0, 0.5, 0.0, math.nan], nan_ok=True)
    assert matrix.f1 == pytest.approx([6 / 7, 0.5, 0.0, math.nan], nan_ok=True)


def test_without_images_there_is_no_metric() -> None:
    matrix = ConfusionMatrix.of([], [], 3)
    assert math.isnan(matrix.accuracy) and math.isnan(matrix.balanced_accuracy)
    assert np.isnan(matrix.recall).all() and matrix.support.tolist() == [0, 0, 0]
