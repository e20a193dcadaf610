"""Multi-label classification: a sigmoid a class, with binary cross-entropy or the asymmetric loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.errors import UsageError
from visionadapt.metrics.multilabel import LabelCounts, best_thresholds, mean_average_precision
from visionadapt.tasks.task import TaskName, Validation


@dataclass(frozen=True)
class MultiLabel:
    """The task in which a picture has any number of classes; targets are float32 [N, C] of zeros and ones.

    With p = σ(z) and p_m = max(p − m, 0), a class costs −y (1 − p)^γ₊ log p − (1 − y) p_m^γ₋ log(1 − p_m): Ridnik et
    al., "Asymmetric Loss for Multi-Label Classification", ICCV 2021, equations 4 to 7. With γ₊ = γ₋ = m = 0 it is the
    binary cross-entropy. A picture's loss is the mean over its classes, where the paper takes the sum.

    Args:
        positive_focus: γ₊, 0 or from 1 on.
        negative_focus: γ₋, 0 or from 1 on.
        margin: m in [0, 1): a negative below this probability costs nothing.
        label_smoothing: ε in [0, 1): the target is 1 − ε/2 for a class that is there and ε/2 for one that is not.
        positive_weights: a factor a class on what its positives cost, or none for equal ones.

    Raises:
        UsageError: a setting is out of range.
    """

    positive_focus: float = 0.0
    negative_focus: float = 0.0
    margin: float = 0.0
    label_smoothing: float = 0.0
    positive_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        focus = all(value == 0 or value >= 1 for value in (self.positive_focus, self.negative_focus))
        if not (focus and 0 <= self.margin < 1 and 0 <= self.label_smoothing < 1):
            raise UsageError(f"{self}: a focus is 0 or from 1 on, margin and label_smoothing are in [0, 1)")

    @classmethod
    def asymmetric(cls, label_smoothing: float = 0.0, positive_weights: tuple[float, ...] | None = None) -> MultiLabel:
        """The asymmetric loss with the paper's own settings: γ₊ = 0, γ₋ = 4, m = 0.05."""
        return cls(0.0, 4.0, 0.05, label_smoothing, positive_weights)

    @property
    def name(self) -> TaskName:
        """`multilabel`."""
        return "multilabel"

    @property
    def figure(self) -> str:
        """Mean average precision chooses the best epoch."""
        return "val_mean_average_precision"

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """1 for each class that a picture has, 0 for all others: float32 [N, C]."""
        targets = torch.zeros(len(labels), classes)
        rows = [row for row, own in enumerate(labels) for _ in own]
        targets[rows, [label for own in labels for label in own]] = 1.0
        return targets

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch of each picture's mean over the classes: logits and targets float [B, C] → scalar."""
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
        probability = logits.sigmoid()
        if self.margin:
            shifted = (probability - self.margin).clamp_min(0)
            negative = torch.log1p(-shifted)
        else:
            shifted = probability
        if self.positive_focus:
            positive = positive * (1 - probability) ** self.positive_focus
        if self.negative_focus:
            negative = negative * shifted**self.negative_focus
        if self.positive_weights is not None:
            positive = positive * torch.tensor(self.positive_weights, device=logits.device)
        return -(targets * positive + (1 - targets) * negative).mean(1).sum()

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of a batch side by side: float32 [B, 2C]; a ranking needs every picture."""
        return torch.cat([logits, targets], 1).cpu()

    def validation(self, tallies: Tensor) -> Validation:
        """Mean average precision, thresholds, and F1 at them, of tallies float32 [N, 2C].

        The loss is the plain binary cross-entropy, whatever was trained with. The thresholds are each class's best
        ones on these very pictures, which flatters the F1.
        """
        logits, targets = tallies.double().chunk(2, 1)
        loss = F.binary_cross_entropy_with_logits(logits, targets).item()
        probabilities, truth = logits.sigmoid().numpy(), targets.bool().numpy()
        thresholds = best_thresholds(probabilities, truth)
        score = mean_average_precision(probabilities, truth)
        f1 = LabelCounts.of(truth, probabilities >= thresholds).macro_f1
        figures = {self.figure: score, "val_macro_f1": f1}
        return Validation(loss, score, figures, torch.from_numpy(thresholds))

    def tolerance(self, best: float, pictures: int) -> float:
        """0: the highest score itself is the best one.

        A mean of rankings has no standard error in closed form, and it moves with every picture, not only with those
        that cross a threshold: it is much less a matter of luck than an accuracy.
        """
        return 0.0


def positive_weights(counts: Sequence[int], pictures: int) -> tuple[float, ...]:
    """Weights that let the positives of a class weigh as much as its negatives: (N − n_c) / n_c, 1 where all have it.

    >>> positive_weights([25, 50], 100)
    (3.0, 1.0)
    """
    return tuple((pictures - count) / count if count < pictures else 1.0 for count in counts)
