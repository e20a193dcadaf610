"""Learning curves: a power law is recovered, and a forecast lies beyond what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from visionadapt.metrics.learning_curve import PowerLaw, fit_power_law


@pytest.mark.parametrize("law", [PowerLaw(2.0, 0.5), PowerLaw(1.0, 0.25), PowerLaw(5.0, 0.9), PowerLaw(0.3, 0.0)])
def test_a_law_is_recovered_from_its_own_values(law: PowerLaw) -> None:
    images = [75, 150, 300, 600, 1200]
    found = fit_power_law(images, [law.scale * n**-law.rate for n in images])
    assert found.error(2400) == pytest.approx(law.scale * 2400**-law.rate, abs=1e-3)


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_no_other_scale_and_rate_fit_better(errors: list[float]) -> None:
    """Against SciPy's search over both."""
    images = np.array([100 * 2**k for k in range(len(errors))], float)
    law = fit_power_law(images.astype(int).tolist(), errors)

    def apart(scale: float, rate: float) -> float:
        return float(np.square(scale * images**-rate - np.array(errors)).sum())

    best = optimize.dual_annealing(lambda x: apart(x[0] * 100 ** x[1], x[1]), [(0, 1.5), (0, 1)], maxiter=60, rng=0)
    assert apart(law.scale, law.rate) <= best.fun + 1e-3


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_more_images_are_never_forecast_to_be_worse(errors: list[float]) -> None:
    images = [100 * 2**k for k in range(len(errors))]
    law = fit_power_law(images, errors)
    assert 0 <= law.error(2 * images[-1]) <= law.error(images[-1]) <= 1


def test_a_single_number_of_images_is_no_curve() -> None:
    with pytest.raises(ValueError, match="two"):
        fit_power_law([100, 100], [0.2, 0.3])
