"""`Predictor`: what a run folder becomes in memory; pictures in, labels and probabilities out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding, ImageDataset
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError
from visionadapt.frozen.features import pad, run_prefix, run_suffix
from visionadapt.frozen.plan import Plan
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import Calibration
from visionadapt.tasks import TaskName

MOST_WAITING = 512
"""Rows that wait for a whole batch at most, where many of them are rejected."""


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one picture.

    Attributes:
        file: the picture's key; empty where a picture without a name was given.
        label: the likeliest class; None where the picture could not be used.
        probability: its probability, in (0, 1], calibrated on the validation pictures of the training.
        probabilities: of every class, in the order of the classes; empty where the picture could not be used.
        labels: every class that the picture has: those whose probability reaches their threshold, which may be none;
            where each picture has exactly one class, the label alone.
        abstain: whether the probability is too low for the precision that was wanted; see `Calibration`.
        distance: how unlike the training pictures it is: 1 is farther than 95 % of the validation pictures. NaN where
            the run does not know.
        problem: why the picture could not be used; None for all others.
    """

    file: str
    label: str | None = None
    probability: float = 0.0
    probabilities: tuple[float, ...] = ()
    abstain: bool = False
    distance: float = math.nan
    problem: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """A trained classifier with the preprocessing and the plan that it was trained with.

    Attributes:
        prepare: decoding, resizing and normalisation.
        classifier: in eval mode, on the plan's device.
        plan: cut, precision and batch size; the same arithmetic as in training.
        calibration: how logits become probabilities, and when to abstain.
    """

    prepare: Preprocessing
    classifier: Classifier
    plan: Plan
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.classifier.classes

    @property
    def task(self) -> TaskName:
        """`single` where a picture has exactly one class, `multilabel` where it has any number."""
        return self.classifier.task

    @overload
    def predict(self, pictures: Sequence[Any]) -> list[Prediction]: ...

    @overload
    def predict(self, pictures: Any) -> Prediction: ...

    def predict(self, pictures: Any) -> Prediction | list[Prediction]:
        """Classify one picture or a list of them.

        Args:
            pictures: a path, a file's bytes, a PIL image, an array [H, W] or [H, W, C], a tensor [C, H, W]; or a list
                or tuple of such.

        Raises:
            ImageError: a single picture cannot be used. In a list such a one gets a `problem` instead.
        """
        if isinstance(pictures, (list, tuple)):
            return self._predict_list(pictures)
        pixels = self.prepare.host(pictures).unsqueeze(0)
        return next(judged(self.classes, self.calibration, [_name(pictures)], *self._run(pixels)))

    def stream(self, manifest: Manifest, workers: int = 0) -> Iterator[tuple[Prediction, Finding]]:
        """Classify the rows of a manifest in order, a batch at a time, in constant memory."""
        for batch in self.batches(manifest, workers):
            yield from batch

    def batches(
        self, manifest: Manifest, workers: int = 0, start: int = 0
    ) -> Iterator[list[tuple[Prediction, Finding]]]:
        """Classify the rows of a manifest in order from row `start` on; yield each batch as soon as it is done.

        Args:
            manifest: the rows; their labels are not looked at.
            workers: processes that read pictures; 0 reads in this one.
            start: how many rows are left out at the beginning.
        """
        dataset = ImageDataset(manifest, self.prepare, Augmentation("none"))
        waiting: list[tuple[Finding, Tensor | None]] = []
        usable = 0
        for sample in samples(dataset, workers, range(start, len(manifest))):
            waiting.append((sample.finding, None if sample.pixels is None else sample.pixels[0]))
            usable += sample.pixels is not None
            if usable == self.plan.prefix_batch or len(waiting) == MOST_WAITING:
                yield list(self._flush(manifest, waiting))
                waiting.clear()
                usable = 0
        if waiting:
            yield list(self._flush(manifest, waiting))

    def logits(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] as `prepare.host` gives them → uncalibrated logits float32 [B, C] on the CPU.

        Each batch is padded to the planned size, so that a picture's logits do not depend on its company.
        """
        return self._run(pixels)[1]

    @torch.inference_mode()
    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, S, S] → pooled features [B, D] and logits [B, C], float32 on the CPU."""
        size = self.plan.prefix_batch
        pooled = [torch.empty(0, self.classifier.backbone.num_features)]
        logits = [torch.empty(0, len(self.classes))]
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            state = run_prefix(self.classifier, self.prepare, self.plan, pad(batch, size))
            features = run_suffix(self.classifier, self.prepare, self.plan, state)
            pooled.append(features[: len(batch)].float().cpu())
            logits.append(self.classifier.head(features)[: len(batch)].cpu())
        return torch.cat(pooled), torch.cat(logits)

    def _predict_list(self, pictures: Iterable[Any]) -> list[Prediction]:
        results: list[Prediction] = []
        usable: list[tuple[int, Tensor]] = []
        for place, picture in enumerate(pictures):
            try:
                usable.append((place, self.prepare.host(picture)))
                results.append(Prediction(_name(picture)))
            except ImageError as error:
                results.append(Prediction(_name(picture), problem=error.reason))
        names = [results[place].file for place, _ in usable]
        if usable:
            found = judged(
                self.classes, self.calibration, names, *self._run(torch.stack([pixels for _, pixels in usable]))
            )
            for (place, _), prediction in zip(usable, found, strict=True):
                results[place] = prediction
        return results

    def _flush(
        self, manifest: Manifest, waiting: Sequence[tuple[Finding, Tensor | None]]
    ) -> Iterator[tuple[Prediction, Finding]]:
        usable = [(manifest.key(finding.index), pixels) for finding, pixels in waiting if pixels is not None]
        found: Iterator[Prediction] = iter(())
        if usable:
            outputs = self._run(torch.stack([pixels for _, pixels in usable]))
            found = judged(self.classes, self.calibration, [key for key, _ in usable], *outputs)
        for finding, pixels in waiting:
            if pixels is None:
                yield Prediction(manifest.key(finding.index), problem=finding.problem), finding
            else:
                yield next(found), finding


def judged(
    classes: Sequence[str], calibration: Calibration, files: Sequence[str], features: Tensor, logits: Tensor
) -> Iterator[Prediction]:
    """Yield a prediction for each row of pooled features [B, D] and logits [B, C]."""
    distances = calibration.distances(features).tolist()
    probabilities = calibration.probabilities(logits)
    best, decided = probabilities.argmax(1).tolist(), calibration.decide(probabilities)
    for file, row, top, chosen, distance in zip(files, probabilities.tolist(), best, decided, distances, strict=True):
        labels = tuple(classes[place] for place in chosen)
        abstain = row[top] < calibration.threshold
        yield Prediction(file, classes[top], row[top], tuple(row), abstain, distance, labels=labels)


def _name(picture: Any) -> str:
    return str(picture) if isinstance(picture, (str, Path)) else ""
