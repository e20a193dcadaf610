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
_ROWS = 4_096
"""Rows whose losses are computed at once."""
_WORSE = 2
"""Number of penalties in a row that are no better than the best, after which no weaker one is tried."""


@dataclass(frozen=True)
class SolvedHead:
    """logits = (x − mean) · weight + bias. N rows, D features, C classes.

    Attributes:
        mean: float32 [D].
        weight: float32 [D, C].
        bias: float32 [C].
        penalty: factor on ‖weight‖², for features scaled to a mean square of 1 / D; of two heads, that on all features.
        loss: mean training loss, without the penalty.
        held_out: how far the loss on the rows held out is above the lowest that their targets allow, by penalty tried;
            empty if there were too few. Of two heads, that on all features.
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
    """Choose the penalty, and the features, by the loss on held-out rows; then fit to all rows.

    The features are the `own` ones, or all, or both: the mean of the logits of these two heads, which one head holds.
    Features that are not chosen get weights of 0. Where there are too few rows to hold some out, the `own` ones are
    chosen.

    A feature is divided by √(σ² + σ̄²), with its own variance and the mean one: divided by σ alone, features that hardly
    vary in a few training images would count most.
    """
    searches = _chosen(data)
    found = [search.fitted() for search in searches]
    heads = [head for head, _ in found]
    missing = [data.features.shape[1] - len(head.weight) for head in heads]
    weights = [F.pad(head.weight, (0, 0, 0, further)) for head, further in zip(heads, missing, strict=True)]
    return replace(
        heads[-1],
        mean=F.pad(heads[-1].mean, (0, missing[-1])),  # that of a feature is the same in both
        weight=torch.stack(weights).mean(0),
        bias=torch.stack([head.bias for head in heads]).mean(0),
        loss=searches[-1].training_loss(torch.stack([logits for _, logits in found]).mean(0)),
    )


def out_of_fold_logits(data: LabelledFeatures) -> Tensor:
    """Logits float32 [N, C] of each row by a head that has not seen its fold; NaN for rows that are never held out.

    Penalty and features are those that `solve_head` chooses.
    """
    searches = _chosen(data)
    return torch.stack([search.out_of_fold() for search in searches]).mean(0)


def _chosen(data: LabelledFeatures) -> list[_Search]:
    """Return the search on the own features, or on all, or both if the mean of their logits is clearly better."""
    every = data.features.shape[1]
    widths = [data.own, every] if data.own is not None and data.own < every else [every]
    searches = [_Search(replace(data, features=data.features[:, :width])) for width in widths]
    if len(searches) == 1 or not searches[0].tried:
        return searches[:1]
    logits = [search.held_out for search in searches]
    losses = [search.held_out_loss(own) for search, own in zip(searches, logits, strict=True)]
    if searches[0].held_out_loss(torch.stack(logits).mean(0)) < _BETTER * min(losses):
        return searches
    return [searches[losses.index(min(losses))]]


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
            losses[candidate] = self.held_out_loss(self._held_out_logits(found))
            if losses[candidate] < _BETTER * losses.get(penalty, math.inf) or best is None:
                penalty, best = candidate, found
            elif len(losses) - 1 - PENALTIES.index(penalty) == _WORSE:
                break
        return penalty, best, losses

    @property
    def held_out(self) -> Tensor:
        """Logits float32 [R, C] of the rows of the folds tried, each by the best head without it."""
        found = self.best[1]
        return self._held_out_logits(found) if found is not None else self.data.targets[:0]

    def fitted(self) -> tuple[SolvedHead, Tensor]:
        """Fit the best head to all rows; return it, and its logits float32 [N, C]."""
        penalty, start, losses = self.best
        found = self.problem.solve(self.weights([]), penalty, None if start is None else start.mean(), tolerance=1e-4)
        logits, weight = self.problem.logits(found)[:, 0], self.problem.weight(found)[:, 0] / self.scale[:, None]
        return SolvedHead(self.mean, weight, found.bias[0], penalty, self.training_loss(logits), losses), logits

    def training_loss(self, logits: Tensor) -> float:
        """Mean loss of logits [N, C] of all rows."""
        losses, _ = self.problem.losses(logits[:, None], self.data.targets[:, None])
        return float((losses * self.weights([])).sum())

    def out_of_fold(self) -> Tensor:
        """Logits float32 [N, C] of each row by the best head without its fold."""
        penalty, found, _ = self.best
        logits = torch.full_like(self.data.targets, torch.nan)
        if found is None:
            return logits
        if len(self.tried) < len(self.folds):
            found = self.problem.solve(self.weights(self.folds), penalty, found.mean(len(self.folds)))
        for place, fold in enumerate(self.folds):
            rows = self._rows(fold)
            logits[rows] = self.problem.logits(found.only(place), rows)[:, 0]
        return logits

    def held_out_loss(self, logits: Tensor) -> float:
        """How far the mean loss of logits [R, C] of the rows of the folds tried is above the lowest possible one."""
        rows = torch.cat([self._rows(fold) for fold in self.tried])
        total = 0.0
        for start in range(0, len(rows), _ROWS):
            part, own = rows[start : start + _ROWS], logits[start : start + _ROWS]
            targets = self.data.targets[part]
            losses = self.problem.losses(own[:, None], targets[:, None])[0][:, 0] - self.problem.lowest_losses(targets)
            total += float((losses * self._own[part]).sum())
        return total / float(self._own[rows].sum())

    def _held_out_logits(self, found: Solution) -> Tensor:
        parts = [self.problem.logits(found.only(place), self._rows(fold)) for place, fold in enumerate(self.tried)]
        return torch.cat(parts)[:, 0]

    def _rows(self, fold: int) -> Tensor:
        return (self.data.folds == fold).nonzero().flatten()
