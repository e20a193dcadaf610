"""What every task has: targets, a loss, and the figure that tells one epoch from a better one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

TaskName = Literal["single", "multilabel"]
"""Every picture has exactly one class; or any number of them, none included."""


@dataclass(frozen=True)
class Validation:
    """What the validation part says of a classifier.

    Attributes:
        loss: mean over the pictures, without smoothing or weights.
        score: the figure that chooses the best epoch, in [0, 1].
        figures: every figure under its name in `metrics.jsonl`, the score's among them.
        thresholds: the probability from which on a picture has a class, float64 [C]; None where it has exactly one.
    """

    loss: float
    score: float
    figures: Mapping[str, float] = field(default_factory=dict)
    thresholds: Tensor | None = None


class Task(Protocol):
    """What is to be learned. N pictures, C classes; logits are float32 [N, C]."""

    @property
    def name(self) -> TaskName:
        """What the task is called in settings and files."""

    @property
    def figure(self) -> str:
        """The name of the figure that chooses the best epoch, such as `val_accuracy`."""

    def targets(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        """Class indices of N pictures as the tensor that the loss takes: int64 [N], or float32 [N, C] of 0 and 1."""

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum of the losses: logits [B, C] and their targets → a scalar, to be divided by the global count."""

    def tally(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What a batch of logits [B, C] adds to the validation: rows [R, K], stacked over batches and processes."""

    def validation(self, tallies: Tensor) -> Validation:
        """The figures of all rows [R, K] that `tally` gave."""

    def tolerance(self, best: float, pictures: int) -> float:
        """How far below the best score on so many pictures a score may lie and still be as good, but for chance."""
