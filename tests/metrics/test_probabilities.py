"""Metrics of probabilities against scikit-learn; their intervals against SciPy, by hand and on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from visionadapt.metrics import intervals
from visionadapt.metrics import probabilities as figures
from visionadapt.tasks import ConfusionMatrix


def predictions(n: int, classes: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    powers = np.exp(random.normal(0, 2, (n, classes)))
    return powers / powers.sum(1, keepdims=True), random.integers(0, classes, n)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(2, 8), st.integers(0, 10**6))
@pytest.mark.filterwarnings("ignore")
def test_metrics_are_scikit_learn_s(n: int, classes: int, seed: int) -> None:
    probabilities, truth = predictions(n, classes, seed)
    labels = list(range(classes))
    losses = figures.losses(probabilities, truth)
    assert losses.mean() == pytest.approx(metrics.log_loss(truth, probabilities, labels=labels), abs=1e-9)
    for count in range(1, classes):
        if classes > 2:
            expected = metrics.top_k_accuracy_score(truth, probabilities, k=count, labels=labels)
            assert figures.in_top(probabilities, truth, count).mean() == pytest.approx(expected, abs=1e-9)
    chosen = probabilities.argmax(1)
    matrix = ConfusionMatrix.of(truth, chosen, classes)
    assert matrix.macro_f1 == pytest.approx(metrics.f1_score(truth, chosen, average="macro"), abs=1e-9)


def test_ties_of_the_top_classes_are_broken_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    probabilities = random.integers(0, 3, (300, 5)).astype(float)
    truth = random.integers(0, 5, 300)
    for count in (1, 2, 3):
        expected = metrics.top_k_accuracy_score(truth, probabilities, k=count, labels=range(5))
        assert figures.in_top(probabilities, truth, count).mean() == pytest.approx(expected)


def test_certain_and_impossible_classes_have_a_finite_loss() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    truth = np.array([0, 1])
    assert figures.losses(probabilities, truth).mean() == pytest.approx(
        metrics.log_loss(truth, probabilities), abs=1e-9
    )


def test_the_calibration_error_by_hand() -> None:
    """Bin (11/15, 12/15]: 0.75 and 0.8, one right: |1 − 1.55|/4; bin (14/15, 1]: 1 and 0.95, both right: 0.05/4."""
    confidence = np.array([0.75, 0.8, 1.0, 0.95])
    correct = np.array([True, False, True, True])
    assert figures.bin_of(np.array([0.0, 1 / 15, 0.0667, 0.8, 1.0])).tolist() == [0, 0, 1, 11, 14]
    assert figures.calibration_error(confidence, correct) == pytest.approx((0.55 + 0.05) / 4)
    assert math.isnan(figures.calibration_error(confidence[:0], correct[:0]))


def test_tempering_undoes_a_temperature() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (20, 4))

    def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    assert figures.tempered(softmax(logits / 0.6), 0.6) == pytest.approx(softmax(logits))
    assert figures.tempered(np.array([[1.0, 0.0]]), 2.0).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 10), (7, 10), (10, 10), (48, 50), (999, 5000)])
def test_wilson_is_scipy_s(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert intervals.share(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_images_there_is_no_interval() -> None:
    nothing = np.zeros((3, 3), dtype=np.int64)
    none = [
        intervals.share(0, 0),
        intervals.balanced_accuracy(nothing),
        intervals.macro_f1(nothing),
        intervals.log_loss(np.empty(0)),
        intervals.calibration_error(np.empty(0), np.empty(0, bool)),
        intervals.calibrated_band(np.empty(0)),
    ]
    assert all(math.isnan(limit) for pair in none for limit in pair)


def test_f1_of_a_class_by_hand() -> None:
    """TP = 6, FP = 2, FN = 1: Wilson for 6 of 9 gives J, and F1 = 2J/(1 + J)."""
    counts = np.array([[6, 1], [2, 5]])
    low, high = (2 * limit / (1 + limit) for limit in intervals.share(6, 9))
    lows, highs = intervals.per_class(ConfusionMatrix(counts))["f1"]
    assert (lows[0], highs[0]) == pytest.approx((low, high))


def test_all_right_has_the_interval_of_an_accuracy_of_1() -> None:
    counts = np.diag([20, 15, 15])
    assert intervals.balanced_accuracy(counts) == intervals.share(50, 50)
    assert intervals.macro_f1(counts) == intervals.share(50, 50)


def test_the_macro_f1_s_variance_is_that_of_resampled_matrices() -> None:
    counts = np.array([[300, 40, 20], [30, 260, 10], [60, 10, 270]])
    random = np.random.default_rng(0)
    drawn = [
        ConfusionMatrix(random.multinomial(1000, counts.ravel() / 1000).reshape(3, 3)).macro_f1 for _ in range(4000)
    ]
    low, high = intervals.macro_f1(counts)
    assert low < ConfusionMatrix(counts).macro_f1 < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.05)


def test_a_mean_of_losses_agrees_with_student_on_normal_ones() -> None:
    losses = np.random.default_rng(1).normal(3, 0.5, 400)
    expected = stats.t.interval(0.95, 399, losses.mean(), stats.sem(losses))
    assert intervals.log_loss(losses) == pytest.approx(expected, abs=0.01)
    assert intervals.log_loss(losses) == intervals.log_loss(losses), "the same every time"
    assert intervals.log_loss(np.full(9, 0.25)) == (0.25, 0.25)
    many = np.random.default_rng(2).exponential(1, 30_000)
    expected = stats.norm.interval(0.95, many.mean(), stats.sem(many))
    assert intervals.log_loss(many) == pytest.approx(expected, abs=1e-6)


def coverage(hits: list[bool]) -> bool:
    """Whether so many hits may be 95 % ± 2 points; chance is given 2.6 standard errors."""
    return abs(np.mean(hits) - 0.95) <= 0.02 + 2.6 * math.sqrt(0.95 * 0.05 / len(hits))


@pytest.mark.parametrize("n", [50, 400])
def test_means_of_shares_are_covered(n: int) -> None:
    random = np.random.default_rng(n)
    joint = np.array([[0.45, 0.03, 0.02], [0.06, 0.22, 0.02], [0.01, 0.01, 0.18]])
    balanced = (np.diagonal(joint) / joint.sum(1)).mean()
    macro = (2 * np.diagonal(joint) / (joint.sum(0) + joint.sum(1))).mean()
    samples = [random.multinomial(n, joint.ravel()).reshape(3, 3) for _ in range(400)]
    for truth, interval in ((balanced, intervals.balanced_accuracy), (macro, intervals.macro_f1)):
        assert coverage([low <= truth <= high for low, high in map(interval, samples)])


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 400])
def test_skewed_losses_are_covered(n: int) -> None:
    random = np.random.default_rng(n)
    samples = [random.gamma(0.35, 1.0, n) for _ in range(300)]
    hits = [low <= 0.35 <= high for low, high in (intervals.log_loss(x, seed) for seed, x in enumerate(samples))]
    assert coverage(hits)
    normal = [abs(x.mean() - 0.35) <= 1.96 * stats.sem(x) for x in samples]
    assert n > 50 or np.mean(normal) < 0.92, "which the plain interval does not do"


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.12])
def test_the_calibration_error_is_covered_though_the_metric_is_above_it(shift: float) -> None:
    random = np.random.default_rng(3)
    hits, shown = [], []
    for _ in range(120):
        confidence = random.uniform(0.6, 1, 200)
        correct = random.random(200) < confidence - shift
        low, high = intervals.calibration_error(confidence, correct)
        shown.append(figures.calibration_error(confidence, correct))
        hits.append(low <= shift <= high)
    assert coverage(hits)
    assert np.mean(shown) > shift


@pytest.mark.slow
def test_the_band_holds_what_a_calibrated_classifier_shows() -> None:
    random = np.random.default_rng(4)
    confidence = random.beta(6, 1, 300)
    low, high = intervals.calibrated_band(confidence)
    shown = [figures.calibration_error(confidence, random.random(300) < confidence) for _ in range(600)]
    inside = np.mean([low <= error <= high for error in shown])
    assert 0.92 <= inside <= 0.98
    assert low > 0, "chance alone opens gaps"
    many = random.beta(6, 1, 21_000)
    few = intervals.calibrated_band(many[:20_000])
    assert intervals.calibrated_band(many) == pytest.approx(few, rel=0.1), "drawn in two ways, about the same"
