"""What is expected of the best of several classifiers, against simulation, and intervals of paired differences."""

from __future__ import annotations

import numpy as np
import pytest

from visionadapt.metrics.selection import accuracy_after_choosing, difference


def test_equally_good_classifiers_owe_their_lead_to_chance() -> None:
    random = np.random.default_rng(0)
    best, corrected = [], []
    for _ in range(20):
        right = random.random((12, 200)) < 0.8
        best.append(right.mean(axis=1).max())
        corrected.append(accuracy_after_choosing(right, 200))
    assert np.mean(best) > 0.83
    assert np.mean(corrected) == pytest.approx(0.8, abs=0.012)


def test_a_classifier_that_is_far_better_keeps_its_accuracy() -> None:
    right = np.random.default_rng(0).random((3, 400)) < np.array([[0.5], [0.9], [0.6]])
    assert accuracy_after_choosing(right) == pytest.approx(right[1].mean(), abs=0.005)


def test_one_classifier_has_its_own_accuracy() -> None:
    right = np.arange(200)[None] % 4 > 0
    assert accuracy_after_choosing(right) == pytest.approx(0.75, abs=0.005)


def test_the_interval_of_a_difference_covers_the_true_one_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(1), 0
    for _ in range(400):
        drawn = random.random(150)
        first, second = drawn < 0.85, (drawn < 0.78) | (drawn > 0.97)  # 0.85 and 0.81 of the images
        by, (low, high) = difference(first, second)
        assert by == pytest.approx(first.mean() - second.mean())
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_equal_classifiers_differ_by_nothing() -> None:
    right = np.ones(50, np.bool_)
    by, (low, high) = difference(right, right)
    assert by == 0
    assert low < 0 < high
