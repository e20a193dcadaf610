"""The baseline that needs no image: always the most common class."""

from __future__ import annotations

from torch import Tensor


def majority_accuracy(train_labels: Tensor, val_labels: Tensor) -> float:
    """Return the share of validation rows in the most common training class; labels int64 [N] and [M]."""
    commonest = train_labels.bincount().argmax()
    return float((val_labels == commonest).double().mean())
