"""Learning curves: a power law is recovered, and a forecast lies beyond what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.metrics.learning_curve import PowerLaw, fit_power_law


@pytest.mark.parametrize("law", [PowerLaw(0.05, 2.0, 0.5), PowerLaw(0.0, 1.0, 0.25), PowerLaw(0.2, 5.0, 0.9)])
def test_a_law_is_recovered_from_its_own_values(law: PowerLaw) -> None:
    images = [75, 150, 300, 600, 1200]
    found = fit_power_law(images, [law.floor + law.scale * n**-law.rate for n in images])
    assert found.error(2400) == pytest.approx(law.floor + law.scale * 2400**-law.rate, abs=1e-3)


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_more_images_are_never_forecast_to_be_worse(errors: list[float]) -> None:
    images = [100 * 2**k for k in range(len(errors))]
    law = fit_power_law(images, errors)
    assert 0 <= law.error(2 * images[-1]) <= law.error(images[-1]) <= 1


def test_a_single_number_of_images_is_no_curve() -> None:
    with pytest.raises(ValueError, match="two"):
        fit_power_law([100, 100], [0.2, 0.3])
