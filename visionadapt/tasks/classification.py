"""Single-label classification: cross-entropy or the focal loss, with label smoothing and class weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.metrics.counts import divide, mean_of
from visionadapt.tasks.task import FOCUS, SoftTargets, TaskName, Validation, factors, no_thresholds

LABEL_SMOOTHING = 0.1
"""Default of the settings."""


@dataclass(frozen=True)
class Classification:
    """The task in which every image has exactly one class; targets are int64 [N].

    An image with probability p of its class costs its cross-entropy times (1 − p)^γ: Lin et al., "Focal Loss for Dense
    Object Detection", ICCV 2017, equation 4. With γ = 0 it is the cross-entropy.

    Args:
        label_smoothing: ε of Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7: the target is
            1 − ε + ε/C for the true class and ε/C for the others. In [0, 1).
        class_weights: one factor per class; None for equal ones.
        focus: γ, 0 or at least 1.
        metric: what chooses the best epoch, `accuracy` or `macro_f1`.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    focus: float = 0.0
    metric: str = "accuracy"

    name: ClassVar[TaskName] = "single"
    has_accuracy: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("label", "probability", "abstain", "distance", "problem")
    truth_column: ClassVar[str] = "true_class"
    without_label: ClassVar[str] = "has no label"

    @classmethod
    def configured(cls, settings: TrainingSettings, counts: Mapping[str, int], rows: int) -> Classification:
        """Cross-entropy or the focal loss, with the requested weights."""
        if settings.loss not in {"auto", "cross_entropy", "focal"}:
            raise UsageError(f"--loss {settings.loss} is for several labels; give cross_entropy, focal or auto")
        if settings.metric == "mean_average_precision":
            raise UsageError("--metric mean_average_precision is for several labels; give accuracy or macro_f1")
        smoothing = LABEL_SMOOTHING if settings.label_smoothing is None else settings.label_smoothing
        balanced = settings.class_weights == "balanced"
        weights = balanced_weights(list(counts.values())) if balanced else factors(settings.class_weights, list(counts))
        metric = "accuracy" if settings.metric == "auto" else settings.metric
        return cls(smoothing, weights, FOCUS if settings.loss == "focal" else 0.0, metric)

    @property
    def figure(self) -> str:
        """`val_accuracy` or `val_macro_f1`."""
        return f"val_{self.metric}"

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
        if self.focus:
            true = logits.softmax(1).gather(1, targets[:, None])[:, 0]
            losses = losses * (1 - true).clamp_min(0) ** self.focus
        if self.class_weights is not None:
            losses = losses * torch.tensor(self.class_weights).to(losses.device, non_blocking=True)[targets]
        return losses.sum()

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Images, correct ones and the sum of the plain cross-entropy of a batch: float64 [1, 3 + 2C].

        Then for each class the correct images, and those that have the class plus those that are given it.
        """
        classes, predicted = logits.shape[1], logits.argmax(1).cpu()
        hits = targets.cpu()[predicted == targets.cpu()].bincount(minlength=classes)
        both = targets.cpu().bincount(minlength=classes) + predicted.bincount(minlength=classes)
        loss = F.cross_entropy(logits, targets, reduction="sum").double()
        sums = torch.tensor([len(logits), int(hits.sum()), loss.item()], dtype=torch.float64)
        return torch.cat([sums, hits, both])[None]

    def validation(self, tallies: Tensor) -> Validation:
        """Mean cross-entropy, and accuracy or macro-F1 with it, of tallies float64 [R, 3 + 2C]."""
        images, right, loss = tallies[:, :3].sum(0).tolist()
        figures = {"val_accuracy": right / images}
        if self.metric == "macro_f1":
            hits, both = tallies[:, 3:].sum(0).chunk(2)
            figures["val_macro_f1"] = mean_of(divide(2 * hits.numpy(), both.numpy()))
        return Validation(loss / images, figures[self.figure], figures)

    def tolerance(self, best: float, images: int) -> float:
        """One standard error √(p(1 − p)/n) of the accuracy p on n images.

        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3. On few images the highest accuracy
        is mostly the luckiest; on many the rule picks the highest itself. 0 for macro-F1, whose standard error has no
        closed form.
        """
        if self.metric != "accuracy":
            return 0.0
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
