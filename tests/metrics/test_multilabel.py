"""Average precision, thresholds and F1 against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from visionadapt.metrics.multilabel import losses, precision_recall
from visionadapt.tasks import LabelCounts, average_precision, best_thresholds, mean_average_precision

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.lists(SCORES, min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3)))


def arrays(rows: list[tuple[list[float], list[bool]]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 3)
    return scores, np.array([row[1] for row in rows], dtype=bool).reshape(-1, 3)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_every_metric_is_scikit_learn_s(rows: list[tuple[list[float], list[bool]]]) -> None:
    scores, truth = arrays(rows)
    thresholds = best_thresholds(scores, truth)
    found = scores >= thresholds
    counts = LabelCounts.of(truth, found)
    assert counts.support.tolist() == truth.sum(0).tolist()
    for column, precision in enumerate(average_precision(scores, truth)):
        wanted, given_scores = truth[:, column], scores[:, column]
        if not wanted.any():
            assert math.isnan(precision)
            assert thresholds[column] == 0.5
            continue
        assert precision == pytest.approx(average_precision_score(wanted, given_scores))
        precisions, recalls, _ = precision_recall_curve(wanted, given_scores)
        sums = precisions + recalls
        best = np.divide(2 * precisions * recalls, sums, out=np.zeros_like(sums), where=sums > 0).max()
        assert f1_score(wanted, found[:, column]) == pytest.approx(best)
        assert 0 <= thresholds[column] <= 1
        expected = precision_recall_fscore_support(wanted, found[:, column], average="binary", zero_division=np.nan)
        ours = (counts.precision[column], counts.recall[column], counts.f1[column])
        assert ours == pytest.approx(expected[:3], nan_ok=True)
    if truth.any():
        assert counts.micro_f1 == pytest.approx(f1_score(truth, found, average="micro"))
    if truth.any(0).all():
        assert counts.macro_f1 == pytest.approx(f1_score(truth, found, average="macro"))
        assert mean_average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))


def test_curves_and_losses_are_scikit_learn_s() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.random((40, 3)).round(1), random.random((40, 3)) < 0.4
    for column in range(3):
        precisions, recalls, _ = precision_recall_curve(truth[:, column], scores[:, column])
        ours = precision_recall(scores[:, column], truth[:, column])
        assert ours[0] == pytest.approx(precisions[-2::-1]) and ours[1] == pytest.approx(recalls[-2::-1])
    expected = [log_loss(row, each, labels=[False, True]) for row, each in zip(truth, scores, strict=True)]
    assert losses(scores, truth) == pytest.approx(expected)


def test_thresholds_by_hand() -> None:
    """Taking the two highest: TP 2, FP 0, FN 0; all ties are taken or left together; a class of all takes all."""
    scores = np.array([[0.9, 0.5, 0.2], [0.7, 0.5, 0.6], [0.3, 0.5, 0.8], [0.1, 0.1, 0.4]])
    truth = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=bool)
    assert best_thresholds(scores, truth) == pytest.approx([0.5, 0.3, 0.1])
    assert average_precision(scores, truth) == pytest.approx([1.0, 1 / 3, 1.0])


def test_a_class_that_is_predicted_and_that_no_image_has_counts_as_zero() -> None:
    truth = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool)
    found = np.array([[1, 0, 1, 0], [0, 1, 1, 1]], dtype=bool)
    assert LabelCounts.of(truth, found).macro_f1 == 0.75 == f1_score(truth, found, average="macro")


def test_neighbouring_scores_stay_apart() -> None:
    high = np.nextafter(0.5, 1.0)
    scores, truth = np.array([[high], [0.5]]), np.array([[True], [False]])
    threshold = best_thresholds(scores, truth)[0]
    assert 0.5 < threshold <= high


def test_without_images_there_is_no_metric() -> None:
    empty = np.empty((0, 2))
    assert np.isnan(average_precision(empty, empty.astype(bool))).all()
    assert best_thresholds(empty, empty.astype(bool)).tolist() == [0.5, 0.5]
    counts = LabelCounts.of(empty.astype(bool), empty.astype(bool))
    assert math.isnan(counts.macro_f1) and math.isnan(counts.micro_f1)
    assert math.isnan(mean_average_precision(empty, empty.astype(bool)))
