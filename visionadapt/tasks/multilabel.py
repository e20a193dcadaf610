"""Multi-label classification: one sigmoid per class, with binary cross-entropy or the asymmetric loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.metrics.multilabel import NO_THRESHOLD, LabelCounts, best_thresholds, mean_average_precision
from visionadapt.tasks.task import FOCUS, SoftTargets, TaskName, Validation, factors


@dataclass(frozen=True)
class MultiLabel:
    """The task in which an image has any number of classes; targets are float32 [N, C] of zeros and ones.

    With p = σ(z) and p_m = max(p − m, 0), a class costs −y (1 − p)^γ₊ log p − (1 − y) p_m^γ₋ log(1 − p_m): Ridnik et
    al., "Asymmetric Loss for Multi-Label Classification", ICCV 2021, equations 4 to 7. With γ₊ = γ₋ = m = 0 it is the
    binary cross-entropy. An image's loss is the mean over its classes, where the paper takes the sum.

    Args:
        positive_focus: γ₊, 0 or at least 1.
        negative_focus: γ₋, 0 or at least 1.
        margin: m in [0, 1): a negative below this probability costs nothing.
        label_smoothing: ε in [0, 1): the target is 1 − ε/2 for a class that is present and ε/2 for one that is not.
        positive_weights: one factor per class on the loss of its positives; None for equal ones.
        metric: what chooses the best epoch, `mean_average_precision` or `macro_f1`.

    Raises:
        UsageError: a setting is out of range.
    """

    positive_focus: float = 0.0
    negative_focus: float = 0.0
    margin: float = 0.0
    label_smoothing: float = 0.0
    positive_weights: tuple[float, ...] | None = None
    metric: str = "mean_average_precision"

    name: ClassVar[TaskName] = "multilabel"
    has_accuracy: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("labels", "distance", "problem")
    truth_column: ClassVar[str] = "true_classes"
    without_label: ClassVar[str] = "has no label; with --task multilabel it counts as an image of no class"

    def __post_init__(self) -> None:
        focus = all(value == 0 or value >= 1 for value in (self.positive_focus, self.negative_focus))
        if not (focus and 0 <= self.margin < 1 and 0 <= self.label_smoothing < 1):
            raise UsageError(f"{self}: a focus is 0 or at least 1, margin and label_smoothing are in [0, 1)")

    @classmethod
    def asymmetric(cls, label_smoothing: float = 0.0, positive_weights: tuple[float, ...] | None = None) -> MultiLabel:
        """The asymmetric loss with the paper's own settings: γ₊ = 0, γ₋ = 4, m = 0.05."""
        return cls(0.0, 4.0, 0.05, label_smoothing, positive_weights)

    @classmethod
    def configured(cls, settings: TrainingSettings, counts: Mapping[str, int], rows: int) -> MultiLabel:
        """Binary cross-entropy, the asymmetric or the focal loss, with the requested weights."""
        if settings.loss == "cross_entropy":
            raise UsageError("--loss cross_entropy is for one class per image; give bce, asymmetric, focal or auto")
        if settings.metric == "accuracy":
            raise UsageError("--metric accuracy is for one class per image; give mean_average_precision or macro_f1")
        if settings.sampling == "balanced":
            raise UsageError("--sampling balanced is for one class per image; give --class-weights balanced instead")
        if settings.cutmix:
            raise UsageError(
                "--cutmix is for one class per image: which of several a box holds is not known; give --mixup"
            )
        balanced = settings.class_weights == "balanced"
        names = list(counts)
        weights = positive_weights(list(counts.values()), rows) if balanced else factors(settings.class_weights, names)
        task = cls.asymmetric() if settings.loss == "asymmetric" else cls()
        if settings.loss == "focal":
            task = cls(FOCUS, FOCUS)
        return replace(
            task,
            label_smoothing=settings.label_smoothing or 0.0,
            positive_weights=weights,
            metric=task.metric if settings.metric == "auto" else settings.metric,
        )

    @property
    def figure(self) -> str:
        """`val_mean_average_precision` or `val_macro_f1`."""
        return f"val_{self.metric}"

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """1 for each class that an image has, 0 for all others: float32 [N, C]."""
        targets = torch.zeros(len(labels), classes)
        rows = [row for row, own in enumerate(labels) for _ in own]
        targets[rows, [label for own in labels for label in own]] = 1.0
        return targets

    def soft_targets(self, labels: Tensor, classes: int) -> SoftTargets:
        """The labels, smoothed, and the weights of the positives; not for a loss with a focus, which is not convex."""
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        positive = None if self.positive_weights is None else torch.tensor(self.positive_weights)
        return SoftTargets(targets, False, positive=positive)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch of each image's mean over the classes: logits and targets float [B, C] → scalar."""
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
            positive = positive * torch.tensor(self.positive_weights).to(logits.device, non_blocking=True)
        return -(targets * positive + (1 - targets) * negative).mean(1).sum()

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of a batch side by side: float32 [B, 2C]; a ranking needs every image."""
        return torch.cat([logits, targets], 1).cpu()

    def validation(self, tallies: Tensor) -> Validation:
        """Mean average precision, thresholds, and F1 at them, of tallies float32 [N, 2C].

        The loss is the plain binary cross-entropy, whatever the training loss. Each class's threshold is the best one
        on these same images, so the F1 is optimistic.
        """
        logits, targets = tallies.double().chunk(2, 1)
        loss = F.binary_cross_entropy_with_logits(logits, targets).item()
        probabilities, truth = logits.sigmoid().numpy(), targets.bool().numpy()
        thresholds = best_thresholds(probabilities, truth)
        score = mean_average_precision(probabilities, truth)
        f1 = LabelCounts.of(truth, probabilities >= thresholds).macro_f1
        figures = {"val_mean_average_precision": score, "val_macro_f1": f1}
        return Validation(loss, figures[self.figure], figures, torch.from_numpy(thresholds))

    def tolerance(self, best: float, images: int) -> float:
        """0: the highest score itself is the best one.

        A mean of rankings has no standard error in closed form, and it moves with every image, not only with those
        that cross a threshold: it depends much less on luck than an accuracy.
        """
        return 0.0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of each class: float64 [B, C]."""
        return logits.double().sigmoid()

    def decide(self, probabilities: Tensor, thresholds: Tensor) -> list[list[int]]:
        """Every class whose probability reaches its threshold."""
        return [row.nonzero().flatten().tolist() for row in probabilities >= thresholds]

    def first_thresholds(self, classes: int) -> Tensor:
        """0.5 for each class."""
        return torch.full((classes,), NO_THRESHOLD, dtype=torch.float64)

    def groups(self, targets: Tensor, classes: int) -> tuple[Tensor, int]:
        """All images in one group."""
        return torch.zeros(len(targets), dtype=torch.int64), 1


def positive_weights(counts: Sequence[int], rows: int) -> tuple[float, ...]:
    """Weights that balance the positives and negatives of each class: (N − n_c) / n_c, 1 where all images have it.

    >>> positive_weights([25, 50], 100)
    (3.0, 1.0)
    """
    return tuple((rows - count) / count if count < rows else 1.0 for count in counts)
