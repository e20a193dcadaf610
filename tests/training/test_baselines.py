"""What a classifier is compared with."""

from __future__ import annotations

import torch

from visionadapt.training.baselines import majority_accuracy


def test_the_commonest_class_of_training_is_always_answered() -> None:
    assert majority_accuracy(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 1, 2, 0, 0])) == 2 / 5
