"""`Predictor`: a trained classifier that takes images and returns labels and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.golden import GoldenImage
from visionadapt.prediction.inputs import Input, is_single, read_images, read_rows
from visionadapt.prediction.prediction import Prediction, cut, predictions
from visionadapt.tasks import TaskName

MANY = 256
"""Images from which building an engine pays."""
MOST_WAITING = 512
"""Rows that wait for a full batch at most, where many of them are rejected."""

Floats = NDArray[np.float32]
_Batch = tuple[list[Input], Tensor, Tensor]
_Outputs = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Predictor:
    """A trained classifier with the preprocessing and the plan that it was trained with.

    Attributes:
        pipeline: classifier, preprocessing and plan: the same arithmetic as in training.
        calibration: how logits become probabilities, and when to abstain.
        golden: a few validation images with the pixels and logits of the training.
    """

    pipeline: Pipeline
    calibration: Calibration = field(default_factory=Calibration)
    golden: tuple[GoldenImage, ...] = ()

    def __repr__(self) -> str:
        model = self.classifier
        return cut(
            f"Predictor({model.backbone.name}, {len(self.classes)} classes, task {self.task}, "
            f"on {self.plan.device}, adapter {', '.join(model.adapter_specs)})"
        )

    @property
    def prepare(self) -> Preprocessing:
        """Decoding, resizing and normalisation."""
        return self.pipeline.prepare

    @property
    def classifier(self) -> Classifier:
        """The classifier, in eval mode on the plan's device."""
        return self.pipeline.model

    @property
    def plan(self) -> Plan:
        """Cut, precision and batch size."""
        return self.pipeline.plan

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.classifier.classes

    @property
    def task(self) -> TaskName:
        """`single` where an image has exactly one class, `multilabel` where it has any number."""
        return self.classifier.task

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...] | Iterator[Any] | Manifest) -> list[Prediction]: ...

    @overload
    def predict(self, images: bytes) -> Prediction: ...

    @overload
    def predict(self, images: Any) -> Any: ...

    def predict(self, images: Any) -> Prediction | list[Prediction]:
        """Classify one image or several.

        Several images are read batch by batch, so that any number of them fits in memory. An image's probabilities
        alone and in company agree to 1e-5: one image is computed as it is, and several in batches; a list, folder or
        source of 256 or more by the engine of `batches`.

        Args:
            images: one image: a path, a file's bytes, a PIL image, an array [H, W] or [H, W, C], a tensor [C, H, W]. Or
                several: a list, generator or other iterable of these, an array [N, H, W, C], a tensor [N, C, H, W], the
                path of a folder (every file in it), a source or a manifest.

        Returns:
            A prediction for one image, or a list with one for each of several.

        Raises:
            ImageError: a single image cannot be used. One of several has a `problem` instead.
            SourceError: a source cannot be read.
        """
        batches = self._read(images)
        found = [prediction for batch in batches for prediction in self._predictions(*batch)]
        return found[0] if is_single(images) else found

    def predict_all(self, images: Iterable[Any]) -> list[Prediction]:
        """Classify single images as `predict` takes them, however many: an image's bits depend on no other one."""
        rows, _ = read_images(list(images), self.prepare)
        return [
            prediction
            for batch in self._batches(rows, self.pipeline.outputs)
            for prediction in self._predictions(*batch)
        ]

    def predict_proba(self, images: Any) -> Floats:
        """Return the calibrated probabilities of one image or several as NumPy array float32 [N, C]; N = 1 for one.

        `images` is as in `predict`. Raises ImageError if any image cannot be used: the error names its file, or its
        index where it has none; and SourceError if a source cannot be read.
        """
        rows = [self.calibration.probabilities(logits).float() for _, _, logits in self._read(images, strict=True)]
        return torch.cat([torch.empty(0, len(self.classes)), *rows]).numpy()

    def features(self, images: Any) -> Floats:
        """Return the pooled features that the head classifies as NumPy array float32 [N, D]; see `predict_proba`."""
        rows = [features for _, features, _ in self._read(images, strict=True)]
        return torch.cat([torch.empty(0, self.classifier.backbone.num_features), *rows]).numpy()

    def in_bulk(self) -> Predictor:
        """Return the same predictor, which computes any number of rows as `batches` computes 256 and more."""
        return replace(self, pipeline=self.pipeline.for_many())

    def stream(self, manifest: Manifest, workers: int = 0) -> Iterator[tuple[Prediction, Finding]]:
        """Classify the rows of a manifest in order, batch by batch, in constant memory."""
        for batch in self.batches(manifest, workers):
            yield from batch

    def batches(
        self, manifest: Manifest, workers: int = 0, start: int = 0
    ) -> Iterator[list[tuple[Prediction, Finding]]]:
        """Classify the rows of a manifest in order from row `start`; yield each batch as soon as it is done.

        A row's bits depend on no other row, on no `workers` and on no `start`: every batch is padded to the planned
        size. Of 256 rows or more, one engine computes the whole backbone, adapters included; it agrees with the
        arithmetic of fewer rows, of validation and of `logits` to 1e-5 in float32.

        Args:
            manifest: the rows; labels are ignored.
            workers: processes that read images; 0 reads in this one.
            start: how many rows to skip.
        """
        pipeline = self.pipeline.for_many() if len(manifest) >= MANY else self.pipeline
        for rows, features, logits in self._batches(
            read_rows(manifest, self.prepare, workers, start), pipeline.outputs
        ):
            findings = [row.finding for row in rows if row.finding is not None]
            yield list(zip(self._predictions(rows, features, logits), findings, strict=True))

    def logits(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] from `prepare.host` → uncalibrated logits float32 [B, C] on the CPU.

        Each batch is padded to the planned size, so that an image's logits do not depend on the others.
        """
        return self.pipeline.outputs(pixels)[1]

    def golden_difference(self) -> float:
        """Return the largest difference between the golden images' logits and those computed now."""
        if not self.golden:
            return 0.0
        pixels = torch.stack([self.prepare.host(image.data) for image in self.golden])
        return float((self.logits(pixels) - torch.stack([image.logits for image in self.golden])).abs().max())

    def _read(self, images: Any, *, strict: bool = False) -> Iterator[_Batch]:
        """Batches of whatever `predict` takes; all must be usable if `strict` is set."""
        rows, count = read_images(images, self.prepare, strict)
        many = count is not None and count >= MANY
        return self._batches(rows, self.pipeline.for_many().outputs if many else self._few_outputs)

    def _few_outputs(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.pipeline.for_few(len(pixels)).outputs(pixels)

    def _batches(self, rows: Iterable[Input], outputs: _Outputs) -> Iterator[_Batch]:
        """Batches of rows, in order, with the features [B, D] and logits [B, C] of those that are usable."""
        waiting: list[Input] = []
        usable: list[Tensor] = []
        for row in rows:
            waiting.append(row._replace(pixels=None))
            usable += [] if row.pixels is None else [row.pixels]
            if len(usable) == self.plan.prefix_batch or len(waiting) == MOST_WAITING:
                yield waiting, *outputs(torch.stack(usable) if usable else torch.empty(0))
                waiting, usable = [], []
        if waiting:
            yield waiting, *outputs(torch.stack(usable) if usable else torch.empty(0))

    def _predictions(self, rows: Sequence[Input], features: Tensor, logits: Tensor) -> Iterator[Prediction]:
        """A prediction for each row of a batch."""
        named = ((row.file, row.problem) for row in rows)
        return predictions(self.classes, self.calibration, named, features, logits)
