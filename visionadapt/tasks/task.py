"""The `Task` protocol: everything that depends on whether an image has one class or several, from targets to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from visionadapt.core.settings import TrainingSettings, given_weights
from visionadapt.core.spec import suggestion
from visionadapt.errors import UsageError

TaskName = Literal["single", "multilabel"]
"""Every image has exactly one class; or any number of them, including none."""


FOCUS = 2.0
"""γ of the focal loss, as Lin et al. (ICCV 2017) found it best."""


def factors(text: str, classes: Sequence[str]) -> tuple[float, ...] | None:
    """Return the factor on each class's loss that `--class-weights` gives as JSON, 1 where it names none; or None.

    Raises:
        UsageError: it names a class that is not there.
    """
    given = given_weights(text)
    for name in given or ():
        if name not in classes:
            raise UsageError(f"--class-weights: there is no class {name!r}{suggestion(name, classes)}")
    return None if given is None else tuple(float(given.get(name, 1.0)) for name in classes)


def no_thresholds() -> Tensor:
    """Return the thresholds of a task that has none: float64 [0]."""
    return torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class Validation:
    """Metrics of a classifier on the validation split.

    Attributes:
        loss: mean over the images, without smoothing or weights.
        score: the metric that chooses the best epoch, in [0, 1].
        figures: every metric under its name in `metrics.jsonl`, including the score.
        thresholds: the probability at which an image gets each class, float64 [C]; [0] for a task without thresholds.
    """

    loss: float
    score: float
    figures: Mapping[str, float] = field(default_factory=dict)
    thresholds: Tensor = field(default_factory=no_thresholds)


@dataclass(frozen=True)
class SoftTargets:
    """Labels as a convex loss takes them. N images, C classes.

    Attributes:
        targets: float32 [N, C]: with `softmax` a distribution per image, otherwise each in [0, 1].
        softmax: one distribution over all classes, or one sigmoid per class.
        weights: of the images, float32 [N]; None for equal ones.
        positive: factor of each class on the loss of its positives, float32 [C]; None for equal ones.
    """

    targets: Tensor
    softmax: bool
    weights: Tensor | None = None
    positive: Tensor | None = None


class Task(Protocol):
    """What a classifier learns and how its answers are read. N images, C classes; logits are float32 [N, C]."""

    name: ClassVar[TaskName]
    """Name in settings and files."""
    has_accuracy: ClassVar[bool]
    """Whether each answer is right or wrong as one: accuracy, its baselines and its slices are defined."""
    columns: ClassVar[tuple[str, ...]]
    """Columns of a table of predictions, between the file and the probabilities."""
    truth_column: ClassVar[str]
    """Column of such a table that holds the true class or classes."""
    without_label: ClassVar[str]
    """Why training rejects a row without labels."""

    @property
    def figure(self) -> str:
        """Name of the metric that chooses the best epoch, such as `val_accuracy`."""

    @classmethod
    def configured(cls, settings: TrainingSettings, counts: Mapping[str, int], rows: int) -> Task:
        """Return the task with the loss and the metric that the settings request.

        Args:
            settings: of the training run.
            counts: training images of each class, by its name and in the order of the logits.
            rows: training images in total.

        Raises:
            UsageError: the loss, the metric or the sampling belongs to another task, or a class is unknown.
        """

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """Class indices of N images → the tensor that the loss takes: int64 [N], or float32 [N, C] of 0 and 1."""

    def soft_targets(self, labels: Tensor, classes: int) -> SoftTargets:
        """The result of `targets`, smoothed and weighted as in `loss_sum`, where that loss is convex."""

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum of the losses: logits [B, C] and their targets → scalar, to be divided by the global count."""

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Contribution of a batch to the validation: rows [R, K], stacked over batches and processes."""

    def validation(self, tallies: Tensor) -> Validation:
        """Metrics of all rows [R, K] that `tally` returned."""

    def tolerance(self, best: float, images: int) -> float:
        """How far a score on so many images may be below the best one and still equal it but for chance."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, C] → probabilities float64 [B, C]."""

    def decide(self, probabilities: Tensor, thresholds: Tensor) -> list[list[int]]:
        """Probabilities [B, C] and thresholds as in `Validation` → the predicted class indices of each image."""

    def first_thresholds(self, classes: int) -> Tensor:
        """Thresholds before training, as in `Validation`."""

    def groups(self, targets: Tensor, classes: int) -> tuple[Tensor, int]:
        """The group of similar features that each image belongs to, int64 [N], and how many groups there are."""
