"""Members of an ensemble are chosen by the cross-entropy of their geometric mean, and only beyond chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from visionadapt.metrics.ensembles import MOST_MEMBERS, choose_members, geometric_mean, is_better


def drawn(noises: list[float], images: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of classifiers that see the truth through independent noise."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=images)
    logits = np.eye(classes)[labels] * 2 + np.stack([random.normal(0, s, (images, classes)) for s in noises])
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), labels


def test_the_geometric_mean_is_scipy_s() -> None:
    probabilities, _ = drawn([1.0, 2.0, 0.5])
    expected = stats.gmean(probabilities, axis=0)
    np.testing.assert_allclose(geometric_mean(probabilities), expected / expected.sum(axis=1, keepdims=True))


def test_equally_good_ones_with_independent_errors_are_taken() -> None:
    probabilities, labels = drawn([1.5, 1.5, 1.5, 1.5, 1.5])
    chosen = choose_members(probabilities, labels)
    assert len(chosen) == len(set(chosen)) == MOST_MEMBERS
    assert chosen[0] == int(np.argmin([log_loss(labels, each) for each in probabilities]))
    assert is_better(geometric_mean(probabilities[chosen]), probabilities[chosen[0]], labels)


def test_a_bad_one_is_left_out() -> None:
    probabilities, labels = drawn([0.1, 6.0])
    assert choose_members(probabilities, labels) == [0]


def test_the_same_one_again_is_no_gain() -> None:
    probabilities, labels = drawn([1.5])
    assert choose_members(np.stack([probabilities[0]] * 3), labels) == [0]
    assert not is_better(probabilities[0], probabilities[0], labels)


@pytest.mark.parametrize("images", [10, 400])
def test_better_means_beyond_chance(images: int) -> None:
    """The rule is the normal interval of the mean difference, as SciPy has it."""
    agreed = set()
    for seed in range(30):
        random = np.random.default_rng(seed)
        labels = random.integers(3, size=images)
        one, other = random.dirichlet([2, 2, 2], (2, images))
        gains = np.log(one[np.arange(images), labels]) - np.log(other[np.arange(images), labels])
        low, _ = stats.norm.interval(0.95, gains.mean(), stats.sem(gains))
        assert is_better(one, other, labels) == (low > 0)
        agreed.add(bool(low > 0))
    assert False in agreed
    assert not is_better(one[:1], other[:1], labels[:1])
