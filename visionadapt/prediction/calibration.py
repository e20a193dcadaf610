"""`Calibration`: how far a classifier's probabilities can be trusted, measured on validation images."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionadapt.metrics.intervals import wilson
from visionadapt.prediction.distance import FeatureDistance
from visionadapt.system.text import percent
from visionadapt.tasks import TaskName, plain_task

TARGET_PRECISION = 0.95
ABSTAIN_ALWAYS = 2.0
"""A threshold that no probability reaches."""
_STEPS = 100
_RANGES = {
    "temperature": (sys.float_info.min, sys.float_info.max),
    "threshold": (0, ABSTAIN_ALWAYS),
    "wanted_precision": (0, 1),
    **dict.fromkeys(("pictures", "answered", "right"), (0, math.inf)),
}
"""The least and the greatest value of each number in `calibration.json`."""


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities, when to abstain, and how far features are from those of the training images.

    Attributes:
        temperature: T in softmax(logits / T).
        threshold: a prediction with a lower probability abstains; above 1 if all do.
        target_precision: share of correct predictions among the others that the threshold was chosen for; None if it
            was not chosen.
        images: number of validation images that it was measured on; 0 if it was not.
        answered, right: how many of them do not abstain, and how many of these are correct.
        distance: None if no training features were measured.
        task: of the classifier, which stores it.
        thresholds: the probability at which an image gets each class; empty for a task without thresholds. They are the
            classifier's, which stores them.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    target_precision: float | None = None
    images: int = 0
    answered: int = 0
    right: int = 0
    distance: FeatureDistance | None = field(default=None, repr=False)
    task: TaskName = "single"
    thresholds: tuple[float, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        if self.thresholds:
            low, high = min(self.thresholds), max(self.thresholds)
            return f"thresholds with the best F1 of each class: {low:.3f} to {high:.3f}"
        if self.target_precision is None:
            return "not calibrated: probabilities are used as they are"
        target = f"{percent(self.target_precision, 0)} precision"
        effect = f"for {target} it abstains below {self.threshold:.3f} ({self.right} of {self.answered} others right)"
        if not self.reachable:
            effect = f"{target} is out of reach at any probability: every prediction abstains"
        return f"calibrated on {self.images} validation images: temperature {self.temperature:.3f}; {effect}"

    @property
    def reachable(self) -> bool:
        """Whether any threshold reaches the target precision."""
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
        """Pooled features [B, D] → float64 [B]; NaN if no training features were measured."""
        if self.distance is None:
            return torch.full((len(features),), math.nan, dtype=torch.float64)
        return self.distance(features)

    def to_json(self) -> dict[str, Any]:
        """Return everything but tensors and what the classifier stores, as plain data."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "wanted_precision": self.target_precision,
            "reachable": self.reachable,
            "pictures": self.images,
            "answered": self.answered,
            "right": self.right,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], distance: FeatureDistance | None) -> Calibration:
        """Read the result of `to_json`; raise KeyError, TypeError or ValueError if a value is missing or wrong."""
        own = {"wanted_precision": "target_precision", "pictures": "images"}
        for name, (lowest, highest) in _RANGES.items():
            chosen = data[name] is not None or name != "wanted_precision"
            if chosen and not lowest <= data[name] <= highest:
                raise ValueError(f"{name} {data[name]!r}")
        return cls(**{own.get(name, name): data[name] for name in _RANGES}, distance=distance)


def fit_calibration(
    logits: Tensor, labels: Tensor, target_precision: float = TARGET_PRECISION, task: TaskName = "single"
) -> Calibration:
    """Fit temperature and threshold to validation logits [N, C] and targets of the task.

    Where an image may have several labels, probabilities stay as they are: no single label can be confident.
    """
    if not plain_task(task).has_accuracy:
        return Calibration(images=len(labels))
    temperature = fit_temperature(logits, labels)
    probabilities = Calibration(temperature).probabilities(logits)
    confidence, chosen = probabilities.max(1)
    correct = chosen == labels
    threshold = choose_threshold(confidence.numpy(), correct.numpy(), target_precision)
    kept = confidence >= threshold
    counts = (len(labels), int(kept.sum()), int((correct & kept).sum()))
    return Calibration(temperature, threshold, target_precision, *counts)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature T with the lowest log-loss of softmax(logits / T): logits [N, C], class indices int64 [N].

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. The sum of the log-losses is convex in
    β = 1/T. A weak prior, β − log β, weighs about as much as one image: it keeps β finite where every image is
    classified correctly. Newton's method in float64, with steps limited to a factor of two.
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


def choose_threshold(confidence: NDArray[np.float64], correct: NDArray[np.bool_], target: float) -> float:
    """Return the lowest threshold at which the remaining predictions have an expected precision; 2 if none has.

    The expected precision is the mean of the remaining probabilities. The share of correct predictions among them is
    far noisier on a few hundred images, and its lucky stretches would be chosen. That share is the check: the target
    must not be above its 95 % interval (Wilson). `confidence` float64 [N] are the calibrated probabilities of the
    predicted classes of validation images, `correct` bool [N].
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, kept = confidence[order], np.arange(1, len(order) + 1)
    expected = np.cumsum(ordered) / kept
    _, highest = wilson(np.cumsum(correct[order]), kept)
    whole = np.append(np.diff(ordered) != 0, True)[: len(order)]
    reached = np.flatnonzero(whole & (expected >= target) & (highest >= target))
    return float(ordered[reached[-1]]) if reached.size else ABSTAIN_ALWAYS
