"""Single-label classification: cross-entropy with label smoothing and class weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.tasks.task import SoftTargets, TaskName, Validation, no_thresholds

LABEL_SMOOTHING = 0.1
"""Default of the settings."""


@dataclass(frozen=True)
class Classification:
    """The task in which every image has exactly one class; targets are int64 [N].

    Args:
        label_smoothing: ε of Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7: the target is
            1 − ε + ε/C for the true class and ε/C for the others. In [0, 1).
        class_weights: one factor per class; None for equal ones.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    name: ClassVar[TaskName] = "single"
    figure: ClassVar[str] = "val_accuracy"
    has_accuracy: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("label", "probability", "abstain", "distance", "problem")
    truth_column: ClassVar[str] = "true_class"
    without_label: ClassVar[str] = "has no label"

    @classmethod
    def configured(cls, settings: TrainingSettings, counts: Sequence[int], rows: int) -> Classification:
        """Cross-entropy, with balanced weights where requested."""
        if settings.loss not in {"auto", "cross_entropy"}:
            raise UsageError(f"--loss {settings.loss} is for several labels per image; give cross_entropy or auto")
        smoothing = LABEL_SMOOTHING if settings.label_smoothing is None else settings.label_smoothing
        return cls(smoothing, balanced_weights(counts) if settings.class_weights == "balanced" else None)

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """First class index of each image, −1 where it has none: int64 [N]."""
        return torch.tensor([row[0] if row else -1 for row in labels], dtype=torch.int64)

    def soft_targets(self, labels: Tensor, classes: int) -> SoftTargets:
        """One row of probabilities per image, and its class's weight."""
        targets = F.one_hot(labels, classes) * (1 - self.label_smoothing) + self.label_smoothing / classes
        weights = None if self.class_weights is None else torch.tensor(self.class_weights)[labels]
        return SoftTargets(targets.float(), True, weights)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch: logits float [B, C], targets int64 [B] → scalar; to be divided by the global count."""
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        if self.class_weights is not None:
            losses = losses * torch.tensor(self.class_weights, device=losses.device)[targets]
        return losses.sum()

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Images, correct ones and the sum of the plain cross-entropy of a batch: float64 [1, 3]."""
        right = (logits.argmax(1) == targets).sum().double()
        loss = F.cross_entropy(logits, targets, reduction="sum").double()
        return torch.stack([torch.tensor(float(len(logits)), dtype=torch.float64), right.cpu(), loss.cpu()])[None]

    def validation(self, tallies: Tensor) -> Validation:
        """Accuracy and mean cross-entropy of tallies float64 [R, 3]."""
        images, right, loss = tallies.sum(0).tolist()
        return Validation(loss / images, right / images, {self.figure: right / images})

    def tolerance(self, best: float, images: int) -> float:
        """One standard error √(p(1 − p)/n) of the accuracy p on n images.

        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3. On few images the highest accuracy
        is mostly the luckiest; on many the rule picks the highest itself.
        """
        share = min(max(best, 0.0), 1.0)
        return math.sqrt(share * (1 - share) / images)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over the classes: float64 [B, C]."""
        return logits.double().softmax(-1)

    def decide(self, probabilities: Tensor, thresholds: Tensor) -> list[list[int]]:
        """The most probable class; thresholds have no effect."""
        return [[best] for best in probabilities.argmax(1).tolist()]

    def first_thresholds(self, classes: int) -> Tensor:
        """None: float64 [0]."""
        return no_thresholds()

    def groups(self, targets: Tensor, classes: int) -> tuple[Tensor, int]:
        """One group per class."""
        return targets, classes


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights inversely proportional to class sizes, with mean 1 over the rows: n / (C · n_c).

    >>> balanced_weights([30, 10])
    (0.6666666666666666, 2.0)
    """
    total = sum(counts)
    return tuple(total / (len(counts) * count) for count in counts)
