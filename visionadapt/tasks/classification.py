"""Single-label classification: cross-entropy with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """The loss of a task in which every picture has exactly one class.

    Args:
        label_smoothing: ε of Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7: the target is
            1 − ε + ε/C for the true class and ε/C for the others. In [0, 1).
        class_weights: a factor a class, or none for equal ones.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the batch: logits float [B, C], labels int64 [B] → scalar; to be divided by the global count."""
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.class_weights is not None:
            losses = losses * torch.tensor(self.class_weights, device=losses.device)[labels]
        return losses.sum()


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights inverse to the classes' sizes, with mean 1 over the rows: n / (C · n_c).

    >>> balanced_weights([30, 10])
    (0.6666666666666666, 2.0)
    """
    total = sum(counts)
    return tuple(total / (len(counts) * count) for count in counts)
