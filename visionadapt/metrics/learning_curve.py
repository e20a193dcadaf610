"""Learning curves: the error of a classifier as a power law of the number of its training images, and forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RATES = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = scale · n^(−rate), for n training images.

    Hestness et al., "Deep learning scaling is predictable, empirically", 2017. A limit above 0, as in Cortes et al.,
    "Learning curves: asymptotic values and rate of convergence", NIPS 1993, is a third number to find from four points:
    forecasts of twice the images were worse with it.
    """

    scale: float
    rate: float

    def error(self, images: float) -> float:
        """Return the error to expect, in [0, 1]."""
        expected: float = self.scale * images**-self.rate
        return min(max(expected, 0.0), 1.0)


def fit_power_law(images: Sequence[int], errors: Sequence[float]) -> PowerLaw:
    """Fit the law to measured errors by least squares, with a rate from 0 to 1.

    Args:
        images: numbers of training images, at least two different ones.
        errors: the error with each, in [0, 1].

    Raises:
        ValueError: there are fewer than two different numbers of images.
    """
    if len(set(images)) < 2:
        raise ValueError("a learning curve needs two different numbers of images")
    n, y = np.asarray(images, np.float64), np.asarray(errors, np.float64)
    laws = [PowerLaw(float(n**-rate @ y / (n ** (-2 * rate)).sum()), float(rate)) for rate in _RATES]
    return min(laws, key=lambda law: float(np.square(law.scale * n**-law.rate - y).sum()))
