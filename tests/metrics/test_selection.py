"""What is expected of the best of several classifiers, against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from visionadapt.metrics.selection import accuracy_after_choosing


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
