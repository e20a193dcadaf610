"""`FeatureDistance`: how far an image's pooled features are from those of the training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_DIRECTIONS = 32
"""Directions with a variance of their own; all others share one."""


@dataclass(frozen=True)
class FeatureDistance:
    """The Mahalanobis distance to the nearest class mean, in units of the validation images' 95th percentile.

    After Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", 2018, equation 2: one
    covariance for all classes. Features are first scaled to length 1, since their length depends little on the content
    (Mueller and Hein, "Mahalanobis++", 2025). The covariance is that of probabilistic principal components (Tipping
    and Bishop, 1999, equation 7): each of the widest directions has its own variance, the others share one, so that few
    images are enough and it is small on disk.

    Attributes:
        means: of each class's scaled features, float32 [C, D]; a class without training images has the mean of all.
        directions: orthonormal, float32 [K, D].
        scales: standard deviation of the features along each direction, float32 [K].
        rest: standard deviation along every other direction, float32 [].
        unit: float32 []; 95 % of the validation images are closer than this.
    """

    means: Tensor
    directions: Tensor
    scales: Tensor
    rest: Tensor
    unit: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Pooled features [B, ≥ D] → float64 [B] ≥ 0; 1 is farther than 95 % of the validation images.

        Of more than D features, the first count: those of the backbone itself.
        """
        return self._raw(features) / self.unit.double()

    def measured_on(self, features: Tensor) -> FeatureDistance:
        """Return the same distance in the unit of validation features [N, D]."""
        unit = torch.quantile(self._raw(features), 0.95).clamp_min(1e-12)
        return dataclasses.replace(self, unit=unit.float())

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields as named tensors."""
        return {item.name: getattr(self, item.name).contiguous() for item in dataclasses.fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FeatureDistance:
        """Read the result of `tensors`; raise KeyError or ValueError if one is missing or out of range."""
        found = cls(**{item.name: tensors[item.name] for item in dataclasses.fields(cls)})
        widths = {found.means.ndim and found.means.shape[-1], found.directions.ndim and found.directions.shape[-1]}
        shapes = (found.means.ndim, found.directions.ndim, found.scales.shape, found.rest.ndim, found.unit.ndim)
        if len(widths) > 1 or shapes != (2, 2, found.directions.shape[:1], 0, 0):
            raise ValueError("a shape")
        if not all((tensor > 0).all() for tensor in (found.scales, found.rest, found.unit)):
            raise ValueError("a spread that is not positive")
        return found

    def _raw(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            own = features[:, : self.means.shape[1]]
            white, centres = self._whitened(_scaled(own)), self._whitened(self.means.double())
            far = torch.cdist(white, centres, compute_mode="donot_use_mm_for_euclid_dist")
            return far.min(dim=1).values

    def _whitened(self, x: Tensor) -> Tensor:
        """float64 [B, D] → [B, D], where the features of a class have standard deviation 1 in every direction."""
        directions = self.directions.double()
        along = x @ directions.T
        return x / self.rest.double() + (along * (1 / self.scales.double() - 1 / self.rest.double())) @ directions


def fit_distance(features: Tensor, labels: Tensor, classes: int) -> FeatureDistance:
    """Fit means and covariance to training features [N, D] with class indices int64 [N]; the unit is 1."""
    x = _scaled(features)
    counts = torch.bincount(labels, minlength=classes).double()
    sums = torch.zeros(classes, x.shape[1], dtype=torch.float64).index_add_(0, labels, x)
    means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], x.mean(0))
    values, vectors = _principal(x - means[labels])
    number = min(MOST_DIRECTIONS, max(int((counts - 1).clamp_min(0).sum()) // 2, 1), x.shape[1] - 1)
    variances = values / max(len(x) - int((counts > 0).sum()), 1)
    rest = (variances.sum() - variances[:number].sum()) / (x.shape[1] - number)
    floor = max(float(variances.sum()) / x.shape[1] * 1e-4, 1e-12)
    scales = variances[:number].clamp_min(floor).sqrt()
    return FeatureDistance(
        means.float(),
        vectors[:number].float(),
        scales.float(),
        rest.clamp_min(floor).sqrt().float(),
        torch.tensor(1.0),
    )


def _scaled(features: Tensor) -> Tensor:
    """[B, D] → float64 [B, D] of length 1."""
    return F.normalize(features.double(), dim=1)


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and right singular vectors as rows, from the smaller Gram matrix."""
    rows, columns = centred.shape
    if rows >= columns:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        return values.flip(0).clamp_min(0), vectors.T.flip(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    directions = (centred.T @ vectors).T / values.sqrt().clamp_min(1e-12)[:, None]
    return values, directions
