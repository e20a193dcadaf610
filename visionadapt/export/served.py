"""`ServedClassifier`: everything from normalised pixels to answers as one module, for tracing into a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.errors import AdapterError, UsageError
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import FeatureDistance

ANSWERS = ("probabilities", "class_index", "abstain", "distance", "features", "logits")
"""What a classifier gives for N images; C classes, D pooled features:

- `probabilities`: calibrated, float32 [N, C];
- `class_index`: the most probable class, int64 [N];
- `abstain`: whether its probability is below the threshold, bool [N]; never where an image may have several classes;
- `distance`: dissimilarity to the training images, float32 [N]; NaN if the run did not measure it;
- `features`: pooled features, float32 [N, D];
- `logits`: uncalibrated, float32 [N, C].
"""
HAS_CLASS = "has_class"
"""Which classes reach their thresholds, bool [N, C]: one answer more where an image may have several classes."""


class ServedClassifier(nn.Module):
    """Normalised pixels float32 [N, 3, S, S] → `answers`, with the arithmetic of `Predictor` in float32.

    Args:
        model: the classifier on the CPU, in eval mode; it does not change.
        calibration: temperature, thresholds and distance.
        merge: whether to merge the adapters into the backbone's weights where they can be.

    Attributes:
        answers: names of the results, in order.
        merged: whether the adapters could be merged into the backbone's weights.
    """

    def __init__(self, model: Classifier, calibration: Calibration, *, merge: bool = True) -> None:
        super().__init__()
        self.backbone, self.merged = _merged(model) if merge else (model.backbone, False)
        self.head = model.head
        self.answers = (*ANSWERS, HAS_CLASS) if len(model.thresholds) else ANSWERS
        self.threshold = calibration.threshold
        self.distance = None if calibration.distance is None else _Distance(calibration.distance)
        self.register_buffer("temperature", torch.tensor(calibration.temperature, dtype=torch.float64))
        self.register_buffer("thresholds", torch.tensor(calibration.thresholds, dtype=torch.float64))
        self.training = False

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Classify normalised pixels."""
        features = self.backbone(pixels).float()
        logits = self.head(features)
        scaled = logits.double() / self.get_buffer("temperature")
        several = HAS_CLASS in self.answers
        probabilities = scaled.sigmoid() if several else scaled.softmax(1)
        best, chosen = probabilities.max(1)
        # NaN of its own: computed from the features, it would spoil the ranges that a quantizer measures
        distance = torch.full_like(best, torch.nan) if self.distance is None else self.distance(features)
        found = (probabilities.float(), chosen, best < self.threshold, distance.float(), features, logits)
        return (*found, probabilities >= self.get_buffer("thresholds")) if several else found


class _Distance(nn.Module):
    """`FeatureDistance` with its constants as buffers, and without the large tensor of differences."""

    def __init__(self, distance: FeatureDistance) -> None:
        super().__init__()
        self.rest, self.unit = float(distance.rest), float(distance.unit)
        directions = distance.directions.double()
        self.register_buffer("directions", directions)
        self.register_buffer("factors", 1 / distance.scales.double() - 1 / self.rest)
        self.register_buffer("centres", self._whitened(distance.means.double()))

    def forward(self, features: Tensor) -> Tensor:
        """Pooled features [N, ≥ D] → float64 [N]."""
        x = features[:, : self.get_buffer("directions").shape[1]].double()
        white = self._whitened(x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12))
        centres = self.get_buffer("centres")
        squared = white.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * white @ centres.T
        return squared.min(1).values.clamp_min(0).sqrt() / self.unit

    def _whitened(self, x: Tensor) -> Tensor:
        directions = self.get_buffer("directions")
        return x / self.rest + (x @ directions.T * self.get_buffer("factors")) @ directions


def not_traced(runtime: str, error: BaseException) -> UsageError:
    """Return the error for a classifier that an exporter does not take: the first line of the cause behind all others.

    >>> print(not_traced("in ONNX", RuntimeError("Failed to export")))
    this classifier cannot be expressed in ONNX (RuntimeError: Failed to export)
    """
    while error.__cause__ is not None:
        error = error.__cause__
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    return UsageError(f"this classifier cannot be expressed {runtime} ({type(error).__name__}: {reason})")


def _merged(model: Classifier) -> tuple[nn.Module, bool]:
    """Return the backbone, with its adapters merged if they can be, and whether they are."""
    if not model.has_adapters:
        return model.backbone, False
    try:
        return adapters.merge(model.backbone), True
    except AdapterError:
        return model.backbone, False
