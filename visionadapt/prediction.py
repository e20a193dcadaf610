"""`Predictor`: what a run folder becomes in memory; pictures in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from visionadapt.data import Finding, PictureDataset, samples
from visionadapt.errors import ImageError
from visionadapt.features import Progress, pad, run_prefix, run_suffix
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.model import Classifier
from visionadapt.plan import Plan
from visionadapt.records import Manifest
from visionadapt.storage import replacing, write_text
from visionadapt.tables import row_text, table_text


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one picture.

    Attributes:
        file: the picture's key; empty where a picture without a name was given.
        label: the likeliest class; None where the picture could not be used.
        probability: its probability, in (0, 1].
        probabilities: of every class, in the order of the classes; empty where the picture could not be used.
        problem: why the picture could not be used; None for all others.
    """

    file: str
    label: str | None = None
    probability: float = 0.0
    probabilities: tuple[float, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A trained classifier with the preprocessing and the plan that it was trained with.

    Attributes:
        prepare: decoding, resizing and normalisation.
        classifier: in eval mode, on the plan's device.
        plan: cut, precision and batch size; the same arithmetic as in training.
    """

    prepare: Preprocessing
    classifier: Classifier
    plan: Plan

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.classifier.classes

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
        logits = self.logits(self.prepare.host(pictures).unsqueeze(0))
        return self._prediction(_name(pictures), logits[0])

    def stream(self, manifest: Manifest, workers: int = 0) -> Iterator[tuple[Prediction, Finding]]:
        """Classify the rows of a manifest in order, a batch at a time, in constant memory."""
        dataset = PictureDataset(manifest, self.prepare, Augmentation("none"))
        waiting: list[tuple[Finding, Tensor | None]] = []
        for sample in samples(dataset, workers):
            waiting.append((sample.finding, None if sample.pixels is None else sample.pixels[0]))
            if sum(pixels is not None for _, pixels in waiting) == self.plan.prefix_batch:
                yield from self._flush(manifest, waiting)
                waiting.clear()
        yield from self._flush(manifest, waiting)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] as `prepare.host` gives them → logits float32 [B, C] on the CPU.

        Each batch is padded to the planned size, so that a picture's logits do not depend on its company.
        """
        size = self.plan.prefix_batch
        parts = []
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            state = run_prefix(self.classifier, self.prepare, self.plan, pad(batch, size))
            features = run_suffix(self.classifier, self.prepare, self.plan, state)
            parts.append(self.classifier.head(features)[: len(batch)].cpu())
        return torch.cat(parts) if parts else torch.empty(0, len(self.classes))

    def _predict_list(self, pictures: Iterable[Any]) -> list[Prediction]:
        results: list[Prediction] = []
        usable: list[tuple[int, Tensor]] = []
        for place, picture in enumerate(pictures):
            try:
                usable.append((place, self.prepare.host(picture)))
                results.append(Prediction(_name(picture)))
            except ImageError as error:
                results.append(Prediction(_name(picture), problem=error.reason))
        if usable:
            logits = self.logits(torch.stack([pixels for _, pixels in usable]))
            for (place, _), row in zip(usable, logits, strict=True):
                results[place] = self._prediction(results[place].file, row)
        return results

    def _flush(
        self, manifest: Manifest, waiting: Sequence[tuple[Finding, Tensor | None]]
    ) -> Iterator[tuple[Prediction, Finding]]:
        usable = [pixels for _, pixels in waiting if pixels is not None]
        rows = iter(self.logits(torch.stack(usable)) if usable else ())
        for finding, pixels in waiting:
            key = manifest.key(finding.index)
            if pixels is None:
                yield Prediction(key, problem=finding.problem), finding
            else:
                yield self._prediction(key, next(rows)), finding

    def _prediction(self, file: str, logits: Tensor) -> Prediction:
        probabilities = logits.double().softmax(0)
        best = int(probabilities.argmax())
        return Prediction(file, self.classes[best], float(probabilities[best]), tuple(probabilities.tolist()))


def _name(picture: Any) -> str:
    return str(picture) if isinstance(picture, (str, Path)) else ""


def write_predictions(
    path: Path, predictor: Predictor, manifest: Manifest, workers: int = 0, progress: Progress | None = None
) -> int:
    """Classify every row into a CSV file, a batch at a time; return how many rows were rejected.

    The columns are file, label, probability, then every class. A rejected row has empty cells; its reason stands in
    a file beside it, `predictions.rejected.csv` for `predictions.csv`, which is there only where there are such rows.

    Raises:
        RunError: the file cannot be written; nothing has been changed then.
    """
    classes = predictor.classes
    rejected: list[tuple[str, str]] = []
    with replacing(path) as file:
        file.write(row_text(("file", "label", "probability", *classes)).encode())
        for done, (row, _) in enumerate(predictor.stream(manifest, workers), 1):
            cells: tuple[str | float, ...] = ("",) * (2 + len(classes))
            if row.label is not None:
                cells = (row.label, row.probability, *row.probabilities)
            file.write(row_text((row.file, *cells)).encode())
            if row.problem is not None:
                rejected.append((row.file, row.problem))
            if progress is not None:
                progress(done, len(manifest))
    beside = rejected_beside(path)
    if rejected:
        write_text(beside, table_text(("file", "reason"), rejected))
    elif beside.exists():
        beside.unlink()
    return len(rejected)


def rejected_beside(path: Path) -> Path:
    """Where the reasons of the rejected rows of `path` stand: `predictions.rejected.csv` for `predictions.csv`."""
    return path.with_name(f"{path.stem}.rejected.csv")
