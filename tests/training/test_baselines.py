"""What a classifier is compared with."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from visionadapt.training import baselines
from visionadapt.training.baselines import Probe, majority_accuracy


def clusters(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [N, 6] around the centre of each of three classes that overlap, in columns of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(7))
    features = centres[labels] + torch.randn(rows, 6, generator=generator)
    return features * torch.tensor([1e-3, 1.0, 1e3, 1.0, 5.0, 1.0]) + 100, labels


def test_the_commonest_class_of_training_is_always_answered() -> None:
    assert majority_accuracy(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 1, 2, 0, 0])) == 2 / 5


def test_a_probe_is_scikit_learns_logistic_regression() -> None:
    features, labels = clusters(300, 0)
    others, truth = clusters(3_000, 1)
    probe = Probe(labels, 3)
    for batch in features.split(64):
        probe.add(batch)
    mean, scale = features.double().mean(0), features.double().std(0)
    theirs = LogisticRegression(C=1 / (2 * 1e-3 * 300), tol=1e-8, max_iter=1_000)
    theirs.fit(((features - mean) / scale).numpy(), labels.numpy())
    expected = theirs.score(((others - mean) / scale).numpy(), truth.numpy())
    assert probe.accuracy(others.split(100), truth) == pytest.approx(expected, abs=2 / 3_000)
    assert 0.6 < expected < 0.95


def test_of_many_rows_evenly_spaced_ones_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_ROWS", 50)
    features, labels = clusters(333, 0)
    few, all_at_once = Probe(labels, 3), Probe(labels[::7], 3)
    for batch in features.split(16):
        few.add(batch)
    all_at_once.add(features[::7])
    others, truth = clusters(1_000, 1)
    assert few.accuracy([others], truth) == all_at_once.accuracy([others], truth)
