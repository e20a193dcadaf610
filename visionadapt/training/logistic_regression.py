"""Logistic regression with an L2 penalty by L-BFGS: a softmax or sigmoids, for several weights of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.special import entr

_ITERATIONS = 500
_HISTORY = 20
_CHUNK = 1 << 22
"""Maximum number of logits that are computed at once."""
_CONSTANT = 1e-7
"""Share of the largest variance below which a principal axis counts as constant."""


@dataclass(frozen=True)
class LogisticRegression:
    """N rows of D features, in C classes; K problems that weight the rows differently are solved at once.

    The weights are found in the P principal axes of the rows. There, the curvature of the loss is nearly diagonal, so
    that L-BFGS converges in a few steps whatever the scales and correlations of the features are. With fewer rows than
    features, the weights lie in the span of the rows, and the rows themselves are expressed in it.

    Args:
        features: centred, float32 [N, D]; penalties are relative to their scale.
        targets: float32 [N, C]: a distribution per row for the softmax, anything in [0, 1] for sigmoids.
        softmax: one distribution over all classes, or one sigmoid per class.
        positive: factor of each class on the loss of its positives, float32 [C]; only for sigmoids.
    """

    features: Tensor
    targets: Tensor
    softmax: bool = True
    positive: Tensor | None = None
    _rows: Tensor = field(init=False)
    _axes: Tensor = field(init=False)
    _variances: Tensor = field(init=False)

    def __post_init__(self) -> None:
        own, wide = self.features, len(self.features) <= self.features.shape[1]
        values, vectors = torch.linalg.eigh((own @ own.T if wide else own.T @ own).double())
        kept = values > _CONSTANT * values[-1].clamp_min(1e-30)
        values, vectors = values[kept], vectors[:, kept]
        axes = (own.double().T @ vectors / values.sqrt() if wide else vectors).to(own)
        object.__setattr__(self, "_axes", axes)
        object.__setattr__(self, "_rows", own @ axes if wide else own)
        object.__setattr__(self, "_variances", (values / max(len(own), 1)).to(own))

    @torch.inference_mode(False)
    def solve(
        self, weights: Tensor, penalty: float, start: Solution | None = None, tolerance: float = 3e-4
    ) -> Solution:
        """Minimise Σ wᵢ lossᵢ + penalty · ‖W‖² for each of K row weights.

        The loss is the cross-entropy, or its sum over the classes for sigmoids. It is convex: `start` changes only how
        long the search takes.

        Args:
            weights: w, float32 [N, K]; each column has a sum of 1.
            penalty: above 0.
            start: the solution of a similar problem; zeros by default.
            tolerance: largest component of the gradient at which a solution is accepted, in coordinates in which the
                curvature is about 1.
        """
        shape = (weights.shape[1], self.targets.shape[1])
        spread = shape[1] ** 0.5
        scale = (self._variances / shape[1] + 2 * penalty).rsqrt()[:, None]
        flat = torch.zeros(len(scale) + 1, shape[0] * shape[1], device=scale.device)
        if start is not None:
            flat[:-1], flat[-1] = start.directions.flatten(1) / scale, start.bias.flatten() / spread
        optimizer = torch.optim.LBFGS(
            [flat.requires_grad_(True)],
            max_iter=_ITERATIONS,
            tolerance_grad=tolerance,
            tolerance_change=0.0,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )

        def solution() -> Solution:
            found = flat.detach()
            return Solution((found[:-1] * scale).view(-1, *shape), (found[-1] * spread).view(shape))

        def loss() -> Tensor:
            now = solution()
            value, gradient, shift = self._loss(now, weights)
            directions = now.directions.flatten(1)
            flat.grad = torch.cat([(gradient + 2 * penalty * directions) * scale, shift[None] * spread])
            return value + penalty * directions.square().sum()

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return solution()

    def logits(self, solution: Solution, rows: Tensor | slice = slice(None)) -> Tensor:
        """Logits float32 [B, K, C] of some rows, all by default."""
        own = self._by_column(solution.directions.flatten(1))
        return torch.addmm(solution.bias.flatten(), self._rows[rows], own).view(-1, *solution.bias.shape)

    def weight(self, solution: Solution) -> Tensor:
        """Weights of the features float32 [D, K, C]."""
        return torch.einsum("dp,pkc->dkc", self._axes, solution.directions)

    def losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [B, K] and its derivative by the logits [B, K, C]; targets [B, 1, C]."""
        if self.softmax:
            logs = logits.log_softmax(2)
            return -(targets * logs).sum(2), logs.exp() - targets
        positive = targets if self.positive is None else targets * self.positive
        negative, probability = 1 - targets, logits.sigmoid()
        losses = positive * F.softplus(-logits) + negative * F.softplus(logits)
        return losses.sum(2), negative * probability - positive * (1 - probability)

    def lowest_losses(self, targets: Tensor) -> Tensor:
        """The lowest loss [B] that any logits can have for targets [B, C]: 0 where they are all 0 or 1."""
        if self.softmax:
            entropy: Tensor = entr(targets).sum(1)
            return entropy
        positive, negative = targets if self.positive is None else targets * self.positive, 1 - targets
        lowest: Tensor = entr(positive) + entr(negative) - entr(positive + negative)
        return lowest.sum(1)

    def _loss(self, solution: Solution, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted loss without penalty, and its gradients by directions [P, K·C] and bias [K·C]."""
        own = self._by_column(solution.directions.flatten(1))
        value, gradient, shift = torch.zeros((), device=own.device), torch.zeros_like(own), torch.zeros_like(own[0])
        step = max(_CHUNK // own.shape[1], 1)
        for start in range(0, len(self._rows), step):
            part = slice(start, start + step)
            losses, residuals = self.losses(self.logits(solution, part), self.targets[part, None])
            value += (losses * weights[part]).sum()
            residuals = (residuals * weights[part, :, None]).flatten(1)
            gradient += self._rows[part].T @ residuals
            shift += residuals.sum(0)
        return value, gradient if self._in_axes else self._axes.T @ gradient, shift

    @property
    def _in_axes(self) -> bool:
        """Whether the rows are expressed in the principal axes."""
        return self._rows is not self.features

    def _by_column(self, directions: Tensor) -> Tensor:
        return directions if self._in_axes else self._axes @ directions


@dataclass(frozen=True)
class Solution:
    """Solutions of K problems: `directions` float32 [P, K, C] along the principal axes, `bias` float32 [K, C]."""

    directions: Tensor
    bias: Tensor

    def only(self, problem: int) -> Solution:
        """Return the solution of one problem, K = 1."""
        return Solution(self.directions[:, problem : problem + 1], self.bias[problem : problem + 1])

    def mean(self, problems: int = 1) -> Solution:
        """Return the mean of all solutions, repeated."""
        directions, bias = self.directions.mean(1, keepdim=True), self.bias.mean(0, keepdim=True)
        return Solution(directions.expand(-1, problems, -1), bias.expand(problems, -1))
