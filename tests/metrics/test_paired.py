"""The paired test against SciPy's binomial test."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from visionadapt.metrics.paired import mcnemar


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (12, 5), (0, 6), (400, 330), (900, 800)])
def test_the_exact_test_is_binomial(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=0.01)
    assert mcnemar(second, first) == mcnemar(first, second)
