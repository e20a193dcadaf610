"""Single-label classification: cross-entropy with label smoothing and class weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.tasks.task import TaskName, Validation


@dataclass(frozen=True)
class Classification:
    """The task in which every picture has exactly one class; targets are int64 [N].

    Args:
        label_smoothing: ε of Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7: the target is
            1 − ε + ε/C for the true class and ε/C for the others. In [0, 1).
        class_weights: a factor a class, or none for equal ones.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    @property
    def name(self) -> TaskName:
        """`single`."""
        return "single"

    @property
    def figure(self) -> str:
        """Accuracy chooses the best epoch."""
        return "val_accuracy"

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """The first class index of each picture, −1 where it has none: int64 [N]."""
        return torch.tensor([row[0] if row else -1 for row in labels], dtype=torch.int64)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch: logits float [B, C], targets int64 [B] → scalar; to be divided by the global count."""
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        if self.class_weights is not None:
            losses = losses * torch.tensor(self.class_weights, device=losses.device)[targets]
        return losses.sum()

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Pictures, right ones and the sum of the plain cross-entropy of a batch: float64 [1, 3]."""
        right = (logits.argmax(1) == targets).sum().double()
        loss = F.cross_entropy(logits, targets, reduction="sum").double()
        return torch.stack([torch.tensor(float(len(logits)), dtype=torch.float64), right.cpu(), loss.cpu()])[None]

    def validation(self, tallies: Tensor) -> Validation:
        """Accuracy and mean cross-entropy of tallies float64 [R, 3]."""
        pictures, right, loss = tallies.sum(0).tolist()
        return Validation(loss / pictures, right / pictures, {self.figure: right / pictures})

    def tolerance(self, best: float, pictures: int) -> float:
        """One standard error √(p(1 − p)/n) of the accuracy p on n pictures.

        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3. On few pictures the highest figure
        is mostly the luckiest; on many the rule picks the highest itself.
        """
        share = min(max(best, 0.0), 1.0)
        return math.sqrt(share * (1 - share) / pictures)


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights inverse to the classes' sizes, with mean 1 over the rows: n / (C · n_c).

    >>> balanced_weights([30, 10])
    (0.6666666666666666, 2.0)
    """
    total = sum(counts)
    return tuple(total / (len(counts) * count) for count in counts)
