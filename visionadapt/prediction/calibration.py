"""`Calibration`: what validation pictures teach about a classifier's word: how sure to be, and when to abstain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionadapt.metrics.intervals import wilson
from visionadapt.prediction.distance import FeatureDistance
from visionadapt.tasks import TaskName, plain_task

WANTED_PRECISION = 0.95
ABSTAIN_ALWAYS = 2.0
"""A threshold that no probability reaches."""
_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities, which of them to keep back, and how far features are from the training's.

    Attributes:
        temperature: T in softmax(logits / T).
        threshold: a prediction whose probability is below it abstains; above 1 where all do.
        wanted_precision: the share of right ones among the others that the threshold was chosen for; None where none
            was.
        pictures: how many validation pictures this was learned from; 0 where nothing was.
        answered, right: how many of them do not abstain, and how many of these are right.
        distance: None where no training features were measured.
        task: of the classifier, which stores it.
        thresholds: the probability at which an image gets each class; empty for a task without thresholds. They are the
            classifier's, which stores them.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    wanted_precision: float | None = None
    pictures: int = 0
    answered: int = 0
    right: int = 0
    distance: FeatureDistance | None = None
    task: TaskName = "single"
    thresholds: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.thresholds:
            low, high = min(self.thresholds), max(self.thresholds)
            return f"thresholds of the classes, for the best F1 each: {low:.3f} to {high:.3f}"
        if self.wanted_precision is None:
            return "not calibrated: probabilities are taken as they are"
        wanted = f"{self.wanted_precision:.0%} precision"
        told = f"for {wanted} it abstains below {self.threshold:.3f} ({self.answered} stay, {self.right} of them right)"
        if not self.reachable:
            told = f"{wanted} is out of reach at any probability: every prediction abstains"
        return f"calibrated on {self.pictures} validation pictures: temperature {self.temperature:.3f}; {told}"

    @property
    def reachable(self) -> bool:
        """Whether the wanted precision is reached at any threshold."""
        return self.threshold <= 1

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, C] → calibrated probabilities float64 [B, C]."""
        return plain_task(self.task).probabilities(logits.double() / self.temperature)

    def decide(self, probabilities: Tensor) -> list[list[int]]:
        """Probabilities float64 [B, C] → the predicted class indices of each image."""
        return plain_task(self.task).decide(probabilities, torch.tensor(self.thresholds, dtype=torch.float64))

    def of(self, task: TaskName, thresholds: Tensor) -> Calibration:
        """Return the same for the task and thresholds of a classifier."""
        return dataclasses.replace(self, task=task, thresholds=tuple(thresholds.tolist()))

    def distances(self, features: Tensor) -> Tensor:
        """Pooled features [B, D] → float64 [B]; NaN where no training features were measured."""
        if self.distance is None:
            return torch.full((len(features),), math.nan, dtype=torch.float64)
        return self.distance(features)

    def to(self, device: str) -> Calibration:
        """The same with its tensors on a device."""
        return dataclasses.replace(self, distance=None if self.distance is None else self.distance.to(device))

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain data."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "wanted_precision": self.wanted_precision,
            "reachable": self.reachable,
            "pictures": self.pictures,
            "answered": self.answered,
            "right": self.right,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], distance: FeatureDistance | None) -> Calibration:
        """Read what `to_json` gave."""
        names = ("temperature", "threshold", "wanted_precision", "pictures", "answered", "right")
        return cls(**{name: data[name] for name in names}, distance=distance)


def fit_calibration(logits: Tensor, labels: Tensor, wanted_precision: float = WANTED_PRECISION) -> Calibration:
    """Fit temperature and threshold to validation logits [N, C] with class indices int64 [N]."""
    temperature = fit_temperature(logits, labels)
    probabilities = Calibration(temperature).probabilities(logits)
    confidence, chosen = probabilities.max(1)
    correct = chosen == labels
    threshold = choose_threshold(confidence.numpy(), correct.numpy(), wanted_precision)
    kept = confidence >= threshold
    counts = (len(labels), int(kept.sum()), int((correct & kept).sum()))
    return Calibration(temperature, threshold, wanted_precision, *counts)


def _unchanged(logits: Tensor, targets: Tensor, wanted_precision: float) -> Calibration:
    """Leave the probabilities as they are: there is no single label to be confident of."""
    return Calibration(pictures=len(targets))


FITS: Mapping[TaskName, Callable[[Tensor, Tensor, float], Calibration]] = {
    "single": fit_calibration,
    "multilabel": _unchanged,
}
"""How each task is calibrated on validation logits [N, C] and targets, for a requested precision."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T that makes softmax(logits / T) the likeliest: logits [N, C], class indices int64 [N].

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. The log-loss sum is convex in β = 1/T.
    A weak prior, β − log β, stands for about one picture: it keeps β finite where every picture is right, and has no
    weight on many. Newton's method in float64, its steps kept within a factor of two.
    """
    z = logits.double()
    beta = 1.0
    for _ in range(_STEPS):
        p = (beta * z).softmax(1)
        mean = (p * z).sum(1)
        slope = float((mean - z[torch.arange(len(z)), labels]).sum()) + 1 - 1 / beta
        curvature = float(((p * z.square()).sum(1) - mean.square()).sum()) + 1 / beta**2
        step = min(max(beta - slope / curvature, beta / 2), beta * 2)
        if abs(step - beta) <= 1e-12 * beta:
            break
        beta = step
    return 1 / beta


def choose_threshold(confidence: NDArray[np.float64], correct: NDArray[np.bool_], wanted: float) -> float:
    """The lowest threshold at which the predictions that stay are expected to have a precision; 2 where none does.

    Args:
        confidence: calibrated probabilities of the predicted classes of validation pictures, float64 [N].
        correct: which of them are right, bool [N].
        wanted: the precision.

    The precision to expect is the mean of the probabilities that stay. The share of right ones among them is far
    noisier on a few hundred pictures, and its lucky stretches would be chosen. That share is the check: it must not be
    so low that the wanted precision lies above its 95 % interval (Wilson).
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, kept = confidence[order], np.arange(1, len(order) + 1)
    expected = np.cumsum(ordered) / kept
    _, highest = wilson(np.cumsum(correct[order]), kept)
    whole = np.append(np.diff(ordered) != 0, True)[: len(order)]
    reached = np.flatnonzero(whole & (expected >= wanted) & (highest >= wanted))
    return float(ordered[reached[-1]]) if reached.size else ABSTAIN_ALWAYS
