"""`ServedRuns`: the runs that a server has open, from the bytes of an image to predictions and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from visionadapt.errors import BackboneError, ImageError, UsageError
from visionadapt.images import Preprocessing
from visionadapt.images.image_files import picture_header
from visionadapt.prediction.prediction import Prediction, predictions
from visionadapt.prediction.predictor import Predictor
from visionadapt.report.embedded_images import heat_map_overlays
from visionadapt.runs import saved
from visionadapt.serve.computing import Computing, computing
from visionadapt.serve.limits import RequestError


@dataclass(frozen=True)
class Item:
    """An image to classify.

    Attributes:
        data: the bytes of its file.
        file: its name, which is only told again.
        runs: names of the runs to classify it with.
        heat_map: whether to draw the regions that support each run's label.
    """

    data: bytes
    file: str
    runs: tuple[str, ...]
    heat_map: bool = False


class ReadItem(NamedTuple):
    """An item and its pixels, uint8 [C, S, S], for each preprocessing that its runs have."""

    item: Item
    pixels: Mapping[Preprocessing, Tensor]


class Answer(NamedTuple):
    """What one run says of an image; the heat map is a `data:` URI, None without one."""

    run: str
    prediction: Prediction
    heat_map: str | None = None


class ServedRuns:
    """Classifies images with any of several runs.

    Args:
        predictors: the runs by name.
        max_pixels: most pixels of an image, where the run itself does not allow fewer.
    """

    def __init__(self, predictors: Mapping[str, Predictor], max_pixels: int) -> None:
        self.predictors = {name: _limited(predictor, max_pixels) for name, predictor in predictors.items()}
        self._max_pixels = max_pixels
        self._parts = computing(self.predictors)
        self._part_of = {name: part for part in self._parts for name in part.names}

    @property
    def shared(self) -> list[tuple[str, ...]]:
        """The runs that share a backbone, by name."""
        return [part.names for part in self._parts if len(part.names) > 1]

    @property
    def batch(self) -> int:
        """Images that are computed at once."""
        return min(predictor.plan.prefix_batch for predictor in self.predictors.values())

    def read(self, item: Item) -> ReadItem:
        """Decode and resize an image.

        Raises:
            RequestError: it is too large (413), no image file that is known (415), or cannot be used (422).
        """
        try:
            kinds = dict.fromkeys(self.predictors[name].prepare for name in item.runs)
            return ReadItem(item, {prepare: prepare.host(item.data) for prepare in kinds})
        except ImageError as error:
            raise self._refusal(item.data, error.reason) from error

    def compute(self, batch: Sequence[ReadItem]) -> list[list[Answer]]:
        """Classify images; the answers of each are in the order of its runs."""
        answers: list[dict[str, Answer]] = [{} for _ in batch]
        for part in self._parts:
            self._compute(part, batch, answers)
        return [[found[name] for name in read.item.runs] for read, found in zip(batch, answers, strict=True)]

    def _compute(self, part: Computing, batch: Sequence[ReadItem], answers: list[dict[str, Answer]]) -> None:
        prepare = self.predictors[part.names[0]].prepare
        places = [at for at, read in enumerate(batch) if set(read.item.runs) & set(part.names)]
        if not places:
            return
        rows = {
            name: [row for row, at in enumerate(places) if name in batch[at].item.runs]
            for name in part.names
            if any(name in batch[at].item.runs for at in places)
        }
        pixels = torch.stack([batch[at].pixels[prepare] for at in places])
        for name, (features, logits) in part.outputs(pixels, rows).items():
            predictor = self.predictors[name]
            named = [(batch[places[row]].item.file, None) for row in rows[name]]
            found = predictions(predictor.classes, predictor.calibration, named, features, logits)
            for row, prediction in zip(rows[name], found, strict=True):
                item = batch[places[row]].item
                drawn = _heat_map(part, name, pixels[row], prediction) if item.heat_map else None
                answers[places[row]][name] = Answer(name, prediction, drawn)

    def _refusal(self, data: bytes, reason: str) -> RequestError:
        header = picture_header(data)
        if header is None:
            return RequestError(415, reason)
        if header.width * header.height > self._max_pixels:
            size = f"{header.width}×{header.height} pixels, more than the {self._max_pixels:,} that this server takes"
            return RequestError(413, f"has {size}")
        return RequestError(422, reason)


def open_runs(folders: Sequence[str], device: str, weights: str | None) -> dict[str, Predictor]:
    """Load run folders; return their predictors by the shortest ends of their paths that tell them apart.

    Raises:
        UsageError: a folder is given twice.
        RunError: one is no run folder, or its weights are not those of the training.
    """
    return {name: saved.load(folder, device, weights=weights) for name, folder in names_of(folders).items()}


def names_of(folders: Sequence[str]) -> dict[str, str]:
    """Return folders by the shortest ends of their paths that tell them apart; raise UsageError for equal ones."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    twice = next(folder for at, folder in enumerate(folders) if parts.index(parts[at]) < at)
    raise UsageError(f"{twice} is given twice; name each run folder once")


def _limited(predictor: Predictor, max_pixels: int) -> Predictor:
    first, *others = predictor.prepare.steps
    decode = replace(predictor.prepare.decode, max_pixels=min(predictor.prepare.decode.max_pixels, max_pixels))
    assert first == predictor.prepare.decode
    pipeline = replace(predictor.pipeline, prepare=Preprocessing((decode, *others)))
    return replace(predictor, pipeline=pipeline)


def _heat_map(part: Computing, name: str, pixels: Tensor, prediction: Prediction) -> str | None:
    """Return the image under the heat map of its label as a `data:` URI; None where the backbone has none."""
    predictor = part.predictor(name)
    chosen = predictor.classes.index(str(prediction.label))
    try:
        return next(iter(heat_map_overlays(predictor, [pixels], [chosen]))).uri
    except BackboneError:
        return None
