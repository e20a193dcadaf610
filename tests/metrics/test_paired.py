"""The paired test against SciPy's binomial test, and the interval of a difference against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from visionadapt.metrics.paired import difference, macro_f1_difference, mcnemar


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (12, 5), (0, 6), (400, 330), (900, 800)])
def test_the_exact_test_is_binomial(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=0.01)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_the_interval_of_a_difference_covers_the_true_one_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(1), 0
    for _ in range(400):
        drawn = random.random(150)
        first, second = drawn < 0.85, (drawn < 0.78) | (drawn > 0.97)  # 0.85 and 0.81 of the images
        by, low, high = difference(int((first & ~second).sum()), int((second & ~first).sum()), 150)
        assert by == pytest.approx(first.mean() - second.mean())
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_equal_classifiers_differ_by_nothing() -> None:
    by, low, high = difference(0, 0, 50)
    assert by == 0
    assert low < 0 < high


def test_the_difference_of_macro_f1_is_that_of_scikit_learn_with_an_interval_that_covers() -> None:
    """Of 60 samples of 80 images, 95 % of the intervals should hold the difference on 200,000; of equal ones, 0."""
    random = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, ...]:
        labels = random.choice(4, n, p=[0.5, 0.3, 0.1, 0.1])
        one, two = (np.where(random.random(n) < right, labels, random.integers(4, size=n)) for right in (0.8, 0.6))
        return one, two, labels

    def theirs(one: np.ndarray, two: np.ndarray, labels: np.ndarray) -> float:
        return float(f1_score(labels, one, average="macro") - f1_score(labels, two, average="macro"))

    true, held = theirs(*drawn(200_000)), 0
    for _ in range(60):
        sample = drawn(80)
        by, low, high = macro_f1_difference(*sample, 4)
        assert by == pytest.approx(theirs(*sample)) and low <= by <= high
        held += low <= true <= high
    assert held >= 51
    assert macro_f1_difference(sample[0], sample[0], sample[2], 5) == (0.0, 0.0, 0.0)
