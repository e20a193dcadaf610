"""`SolvedHead`: a linear classifier of frozen features, whose penalty cross-validation chooses.

`--adapter none` trains it, every other run has it as its baseline, and the audit asks it for out-of-fold probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.training.logistic_regression import LogisticRegression, Solution

PENALTIES = tuple(10 ** (-step / 2) for step in range(4, 19))
"""From the strongest to the weakest."""
FEW_PENALTY = 1e-4
"""Penalty if there are too few rows to hold some out."""
MOST_HELD_OUT = 20_000
"""Number of rows up to which every fold is held out to choose the penalty; of more rows, only the first fold is."""
_BETTER = 0.99
"""Share of the loss of a stronger penalty below which that of a weaker one must be: further down, only rounding
decides, and the solver takes long."""
_WORSE = 2
"""Number of penalties in a row that are no better than the best, after which no weaker one is tried."""


@dataclass(frozen=True)
class SolvedHead:
    """logits = (x − mean) · weight + bias. N rows, D features, C classes.

    Attributes:
        mean: float32 [D].
        weight: float32 [D, C].
        bias: float32 [C].
        penalty: factor on ‖weight‖², for features scaled to a mean square of 1 / D.
        loss: mean training loss, without the penalty.
        held_out: loss on the rows held out, by penalty tried; empty if there were too few.
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor
    penalty: float
    loss: float
    held_out: dict[float, float]

    def logits(self, features: Tensor) -> Tensor:
        """Pooled features [B, D] → logits float32 [B, C]."""
        return (features.float() - self.mean) @ self.weight + self.bias

    def cpu(self) -> SolvedHead:
        """Return the head on the CPU."""
        tensors = {name: getattr(self, name).cpu() for name in ("mean", "weight", "bias")}
        return replace(self, **tensors)


@dataclass(frozen=True)
class LabelledFeatures:
    """What a head is fitted to.

    Args:
        features: pooled features float32 [N, D].
        targets: float32 [N, C]: a distribution per row, or without `softmax` anything in [0, 1].
        folds: fold of each row, int64 [N]; those of −1 are never held out.
        softmax: whether an image has one class, or any number of them.
        weights: of the rows, float32 [N]; equal by default.
        positive: factor of each class on the loss of its positives, float32 [C]; only without `softmax`.
        own: number of leading features that are a choice too, without the others; all by default.
    """

    features: Tensor
    targets: Tensor
    folds: Tensor
    softmax: bool = True
    weights: Tensor | None = None
    positive: Tensor | None = None
    own: int | None = None

    def to(self, device: str) -> LabelledFeatures:
        """Return the rows on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        positive = None if self.positive is None else self.positive.to(device)
        features, targets, folds = (tensor.to(device) for tensor in (self.features, self.targets, self.folds))
        return replace(self, features=features, targets=targets, folds=folds, weights=weights, positive=positive)


def solve_head(data: LabelledFeatures) -> SolvedHead:
    """Choose the penalty, and all features or the `own` ones, by the loss on held-out rows; then fit to all rows.

    Features that are not chosen get weights of 0. Where there are too few rows to hold some out, the `own` ones are
    chosen.

    A feature is divided by √(σ² + σ̄²), with its own variance and the mean one: divided by σ alone, features that hardly
    vary in a few training images would count most.
    """
    search = _best_search(data)
    penalty, start, losses = search.best
    weights = search.weights([])
    found = search.problem.solve(weights, penalty, None if start is None else start.mean(), tolerance=1e-4)
    loss = (search.problem.losses(search.problem.logits(found), data.targets[:, None])[0] * weights).sum()
    weight = search.problem.weight(found)[:, 0] / search.scale[:, None]
    missing = data.features.shape[1] - len(weight)
    weight, mean = F.pad(weight, (0, 0, 0, missing)), F.pad(search.mean, (0, missing))
    return SolvedHead(mean, weight, found.bias[0], penalty, float(loss), losses)


def out_of_fold_logits(data: LabelledFeatures) -> Tensor:
    """Logits float32 [N, C] of each row by a head that has not seen its fold; NaN for rows that are never held out.

    Penalty and features are those that `solve_head` chooses.
    """
    search = _best_search(data)
    penalty, start, _ = search.best
    return search.out_of_fold(penalty, start)


def _best_search(data: LabelledFeatures) -> _Search:
    """Return the search with the lowest loss on held-out rows: on the own features, or on all."""
    every = data.features.shape[1]
    widths = [data.own, every] if data.own is not None and data.own < every else [every]
    searches = [_Search(replace(data, features=data.features[:, :width])) for width in widths]
    return min(searches, key=lambda search: min(search.best[2].values(), default=0.0))


class _Search:
    """The search for a penalty on folds: those that can be held out, and those that are, to choose it."""

    def __init__(self, data: LabelledFeatures) -> None:
        features = data.features.float()
        variance, self.mean = torch.var_mean(features, dim=0, unbiased=False)
        self.scale = (variance + variance.mean()).clamp_min(1e-12).sqrt() * len(variance) ** 0.5
        scaled = (features - self.mean) / self.scale
        self.data = data
        self.problem = LogisticRegression(scaled, data.targets, data.softmax, data.positive)
        self._own = torch.ones(len(data.features)) if data.weights is None else data.weights.float()
        self._own = self._own.to(data.features.device)
        self.folds: list[int] = [fold for fold in sorted(set(data.folds.tolist())) if fold >= 0]
        if not bool((data.folds != self.folds[0]).any() if self.folds else False):  # no row would be left to fit to
            self.folds = []
        self.tried = self.folds if len(self._own) <= MOST_HELD_OUT else self.folds[:1]

    def weights(self, without: Sequence[int]) -> Tensor:
        """Row weights with a sum of 1, each column without one fold: float32 [N, K]; of all rows, if none is given."""
        kept = self.data.folds[:, None] != torch.tensor(without or [-2], device=self.data.folds.device)
        weights = self._own[:, None] * kept.to(self._own)
        return weights / weights.sum(0)

    @cached_property
    def best(self) -> tuple[float, Solution | None, dict[float, float]]:
        """The best penalty, the solutions of the folds tried, and the loss on the held-out rows by penalty.

        Penalties are tried from strong to weak, each from the solution of the one before, for all folds at once.
        """
        penalty, best, losses = FEW_PENALTY, None, dict[float, float]()
        found: Solution | None = None
        weights = self.weights(self.tried)
        for candidate in PENALTIES if self.tried else ():
            found = self.problem.solve(weights, candidate, found)
            losses[candidate] = self._held_out_loss(found)
            if losses[candidate] < _BETTER * losses.get(penalty, math.inf) or best is None:
                penalty, best = candidate, found
            elif len(losses) - 1 - PENALTIES.index(penalty) == _WORSE:
                break
        return penalty, best, losses

    def out_of_fold(self, penalty: float, start: Solution | None) -> Tensor:
        """Logits float32 [N, C] of each row by the head without its fold; `start` holds those of the folds tried."""
        logits, found = torch.full_like(self.data.targets, torch.nan), start
        if found is None:
            return logits
        if len(self.tried) < len(self.folds):
            found = self.problem.solve(self.weights(self.folds), penalty, found.mean(len(self.folds)))
        for place, fold in enumerate(self.folds):
            rows = self._rows(fold)
            logits[rows] = self.problem.logits(found.only(place), rows)[:, 0]
        return logits

    def _held_out_loss(self, found: Solution) -> float:
        """Mean loss on the rows of the folds tried, each by the head without it."""
        total, count = 0.0, 0.0
        for place, fold in enumerate(self.tried):
            rows = self._rows(fold)
            logits = self.problem.logits(found.only(place), rows)
            losses, _ = self.problem.losses(logits, self.data.targets[rows, None])
            total += float((losses[:, 0] * self._own[rows]).sum())
            count += float(self._own[rows].sum())
        return total / count

    def _rows(self, fold: int) -> Tensor:
        return (self.data.folds == fold).nonzero().flatten()
