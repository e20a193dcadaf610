"""Learning curves: the error of a classifier as a power law of the number of its training images, and forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RATES = np.linspace(0.05, 1.0, 96)


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + scale · n^(−rate), for n training images.

    Cortes et al., "Learning curves: asymptotic values and rate of convergence", NIPS 1993.
    """

    floor: float
    scale: float
    rate: float

    def error(self, images: float) -> float:
        """Return the error to expect, in [0, 1]."""
        expected: float = self.floor + self.scale * images**-self.rate
        return min(max(expected, 0.0), 1.0)


def fit_power_law(images: Sequence[int], errors: Sequence[float]) -> PowerLaw:
    """Fit the law to measured errors by least squares, with floor ≥ 0 and scale ≥ 0.

    Args:
        images: numbers of training images, at least two different ones.
        errors: the error with each, in [0, 1].

    Raises:
        ValueError: there are fewer than two different numbers of images.
    """
    if len(set(images)) < 2:
        raise ValueError("a learning curve needs two different numbers of images")
    n, y = np.asarray(images, np.float64), np.asarray(errors, np.float64)
    laws = [_with_rate(n, y, float(rate)) for rate in _RATES]
    return min(laws, key=lambda law: float(np.square(law.floor + law.scale * n**-law.rate - y).sum()))


def _with_rate(n: np.typing.NDArray[np.float64], y: np.typing.NDArray[np.float64], rate: float) -> PowerLaw:
    """Return the best law of one rate; a limit holds where the free solution is beyond it."""
    x = n**-rate
    centred = x - x.mean()
    scale = float(centred @ y / (centred @ centred))
    floor = float(y.mean() - scale * x.mean())
    if scale < 0:
        return PowerLaw(float(y.mean()), 0.0, rate)
    if floor < 0:
        return PowerLaw(0.0, float(x @ y / (x @ x)), rate)
    return PowerLaw(floor, scale, rate)
