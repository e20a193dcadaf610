"""Baselines for a classifier: always the most common class, and a linear probe on the frozen features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from visionadapt.training.logistic_regression import fit_logistic_regression

MOST_ROWS = 10_000
"""Maximum number of rows to fit a probe on; of a larger training split, evenly spaced rows."""
_DECAY = 1e-3


def majority_accuracy(train_labels: Tensor, val_labels: Tensor) -> float:
    """Return the share of validation rows in the most common training class; labels int64 [N] and [M]."""
    commonest = train_labels.bincount().argmax()
    return float((val_labels == commonest).double().mean())


class Probe:
    """Logistic regression on pooled features before any training, collected batch by batch.

    The features are standardised by the collected rows. W minimises the mean cross-entropy + 0.001 · ‖W‖², which has
    one minimum; L-BFGS finds it. `labels` are the class indices int64 [N] of all training rows; `kept` has the position
    of each collected batch's first row, and the rows used.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self._every = -(-len(labels) // MOST_ROWS)
        self._labels = labels[:: self._every]
        self._classes = classes
        self.kept: list[tuple[int, Tensor]] = []
        self._seen = 0

    def add(self, features: Tensor, start: int | None = None) -> None:
        """Add features [B, D] of consecutive rows: the next ones, or those from position `start`."""
        start = self._seen if start is None else start
        self.kept.append((start, features[-start % self._every :: self._every].float().clone()))
        self._seen = start + len(features)

    def accuracy(self, features: Iterable[Tensor], labels: Tensor) -> float:
        """Fit on the collected rows; return the accuracy on other rows, passed batch by batch."""
        rows = torch.cat([rows for _, rows in sorted(self.kept, key=lambda kept: kept[0])])
        if not rows.isfinite().all():  # training stops at its first step with an error
            return 0.0
        mean, scale = rows.mean(0), rows.std(0).clamp_min(1e-6)
        weight, bias = fit_logistic_regression((rows - mean) / scale, self._labels, self._classes, _DECAY)
        predicted = [(((batch.float() - mean) / scale) @ weight + bias).argmax(1) for batch in features]
        return float((torch.cat(predicted) == labels).double().mean())
