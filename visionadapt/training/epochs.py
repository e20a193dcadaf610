"""The result of an epoch, the state that the next one resumes from, and the best epoch so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionadapt.errors import UsageError
from visionadapt.html.notebook import table
from visionadapt.metrics.words import value_of, words

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next epoch depends on: `facts`, and tensors.

    These are `weights/…`, `best/…`, `optimizer/…`, and with averaged weights `average/…`.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix such as `best/`, without it."""
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Epoch:
    """Result of one epoch; epochs count from 1.

    Attributes:
        train_loss: mean over the training images, with label smoothing and class weights.
        val_loss: mean over the validation images, without them.
        val_score: the metric that selects the best epoch, in [0, 1]; `figure` names it.
        figure: `val_accuracy`, or `val_mean_average_precision` if images have several labels.
        figures: every validation metric except the loss, by name.
        learning_rate: the largest of the last step.
        best_epoch: the one that is kept so far, the latest that is the best but for chance; 0 while none is reliably
            better than the solved head on the untrained features.
        epochs: total number of epochs.
        state: what the next epoch resumes from.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_score: float
    figure: str
    figures: Mapping[str, float]
    learning_rate: float
    seconds: float
    images_per_second: float
    best_epoch: int
    epochs: int
    state: TrainingState = dataclasses.field(repr=False)

    def __str__(self) -> str:
        figures = ", ".join(f"{words(name)} {value_of(name, value)}" for name, value in self.figures.items())
        return (
            f"epoch {self.epoch}/{self.epochs}: train loss {self.train_loss:.4f}, val loss {self.val_loss:.4f}, "
            f"{figures}; kept so far: {self.kept}"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the metrics, and what is kept so far."""
        values = {"train_loss": self.train_loss, "val_loss": self.val_loss, **self.figures}
        rows = [(words(name), value_of(name, value)) for name, value in values.items()]
        return table(f"Epoch {self.epoch} of {self.epochs}", [*rows, ("kept so far", self.kept)])

    @property
    def kept(self) -> str:
        """What the model would be if the training ended here, in words."""
        if self.best_epoch:
            return f"epoch {self.best_epoch}"
        score = self.state.facts.get("solved")
        return "the solved head" if score is None else f"the solved head ({value_of(self.figure, score)})"

    @property
    def val_accuracy(self) -> float:
        """Share of the validation images classified correctly.

        Raises:
            UsageError: images have several labels, so that there is no accuracy.
        """
        if "val_accuracy" not in self.figures:
            raise UsageError(f"images with several labels have no accuracy; use {self.figure} ({self.val_score:.4f})")
        return self.figures["val_accuracy"]

    def metrics(self) -> dict[str, float | int | None]:
        """Return the metrics as plain data, without the state; NaN becomes None."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
            **{name: value if value == value else None for name, value in self.figures.items()},
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


_ROUNDING = 1e-9
"""Of the mean of equal scores."""


@dataclass(frozen=True)
class Best:
    """The best epoch so far: the latest whose validation score is within `Task.tolerance` of the highest.

    Attributes:
        highest: the highest score of an epoch.
        epoch: 0 while the solved head is the best.
        weights: those of the best epoch.
        solved: score of the solved head, below which no epoch is the best, nor the mean of it and those before; None if
            there is none.
        only: validation images that only the best epoch classifies correctly, and that only the solved head does.
    """

    highest: float = -1.0
    epoch: int = 0
    weights: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    solved: float | None = None
    only: tuple[int, int] = (0, 0)

    def accepts(self, score: float, tolerance: float, level: float | None = None) -> bool:
        """Return whether an epoch with this score becomes the best; if every score is NaN, the latest one does.

        `level` is the mean score of the latest epochs: one lucky epoch among worse ones is no reason to prefer it to
        the solved head.
        """
        lowest = -1.0 if self.solved is None else self.solved
        lucky = level is not None and level < lowest - _ROUNDING
        return not score < max(self.highest - tolerance, lowest) and not lucky

    def followed_by(self, score: float, epoch: int, weights: Mapping[str, Tensor], only: tuple[int, int]) -> Best:
        """Return the best after accepting an epoch."""
        highest = score if self.highest < score or score != score else self.highest
        return Best(highest, epoch, weights, self.solved, only)
