"""The paired test against SciPy's binomial test, and the interval of a difference against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from visionadapt.metrics.paired import difference, mcnemar


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
