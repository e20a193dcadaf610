"""The solver against scikit-learn's, and what does not depend on the coordinates in which it works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Theirs
from torch import Tensor
from torch.nn import functional as F

from visionadapt.training.logistic_regression import LogisticRegression


def blobs(rows: int, size: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Centred features [N, D] of overlapping classes, in correlated columns of very different scales; labels [N]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    mixing = torch.randn(size, size, generator=generator) * torch.logspace(-1, 1, size)
    features = (torch.randn(classes, size, generator=generator)[labels] * 0.5) @ mixing
    features += torch.randn(rows, size, generator=generator) @ mixing
    return (features - features.mean(0)) / size, labels


@pytest.mark.parametrize(("rows", "size"), [(300, 12), (60, 200)])
@pytest.mark.parametrize("penalty", [1e-2, 1e-4])
def test_the_solution_is_scikit_learns(rows: int, size: int, penalty: float) -> None:
    features, labels = blobs(rows, size)
    problem = LogisticRegression(features, F.one_hot(labels, 4).float())
    found = problem.solve(torch.full((rows, 1), 1 / rows), penalty, tolerance=1e-6)
    theirs = Theirs(C=1 / (2 * penalty * rows), tol=1e-9, max_iter=20_000).fit(features.double().numpy(), labels)
    own = problem.logits(found)[:, 0].softmax(1).numpy()
    assert np.abs(own - theirs.predict_proba(features.double().numpy())).max() < 2e-3
    weight = problem.weight(found)[:, 0].T.numpy()
    scale = np.abs(theirs.coef_).max()
    assert np.abs(weight - theirs.coef_).max() < 5e-3 * scale
    assert torch.allclose(problem.logits(found)[:, 0], features @ problem.weight(found)[:, 0] + found.bias, atol=1e-3)


def test_problems_that_are_solved_together_have_the_solutions_of_each_alone() -> None:
    features, labels = blobs(90, 20)
    problem = LogisticRegression(features, F.one_hot(labels, 4).float())
    weights = (torch.arange(90)[:, None] % 3 != torch.arange(3)).float()
    weights /= weights.sum(0)
    together = problem.logits(problem.solve(weights, 1e-3, tolerance=1e-6))
    for number in range(3):
        kept = weights[:, number] > 0
        alone = LogisticRegression(features[kept], F.one_hot(labels[kept], 4).float())
        found = alone.solve(torch.full((60, 1), 1 / 60), 1e-3, tolerance=1e-6)
        logits = features @ alone.weight(found)[:, 0] + found.bias
        assert torch.allclose(together[:, number].softmax(1), logits.softmax(1), atol=1e-3)


def test_sigmoids_are_one_regression_per_class_with_weighted_positives() -> None:
    features, labels = blobs(200, 10)
    targets = torch.stack([labels == 0, labels >= 2], 1).float()
    problem = LogisticRegression(features, targets, softmax=False, positive=torch.tensor([3.0, 1.0]))
    found = problem.solve(torch.full((200, 1), 1 / 200), 1e-3, tolerance=1e-6)
    for place, factor in enumerate((3.0, 1.0)):
        own = targets[:, place].numpy()
        theirs = Theirs(C=1 / (2 * 1e-3 * 200), tol=1e-9, max_iter=20_000)
        theirs.fit(features.double().numpy(), own, np.where(own > 0, factor, 1.0))
        expected = theirs.predict_proba(features.double().numpy())[:, 1]
        assert np.abs(problem.logits(found)[:, 0, place].sigmoid().numpy() - expected).max() < 2e-3


def test_the_derivative_of_the_loss_is_its_derivative() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 1, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    distribution = torch.rand(5, 1, 3, generator=generator, dtype=torch.float64).softmax(2)
    targets = torch.rand(5, 1, 3, generator=generator, dtype=torch.float64)
    features = torch.randn(5, 3, generator=generator)
    for problem, given in (
        (LogisticRegression(features, features), distribution),
        (LogisticRegression(features, features, softmax=False, positive=torch.tensor([2.0, 1.0, 0.5])), targets),
    ):
        losses, derivative = problem.losses(logits, given)
        (expected,) = torch.autograd.grad(losses.sum(), logits)
        assert torch.allclose(derivative, expected, atol=1e-9)


def test_many_rows_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(100, 8)
    weights = torch.full((100, 1), 1 / 100)
    whole = LogisticRegression(features, F.one_hot(labels, 4).float()).solve(weights, 1e-3, tolerance=1e-6)
    monkeypatch.setattr("visionadapt.training.logistic_regression._CHUNK", 4 * 7)
    parts = LogisticRegression(features, F.one_hot(labels, 4).float()).solve(weights, 1e-3, tolerance=1e-6)
    assert torch.allclose(whole.directions, parts.directions, atol=1e-2)
