"""Features and logits of images for one run, or for several runs that share one backbone."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from visionadapt import adapters
from visionadapt.errors import AdapterError
from visionadapt.frozen.engines import candidates
from visionadapt.frozen.part import TOLERANCE, FrozenPart
from visionadapt.frozen.pipeline import Pipeline, pad
from visionadapt.model.shared import SharedClassifiers
from visionadapt.prediction.predictor import Predictor

Outputs = tuple[Tensor, Tensor]
"""Pooled features float32 [B, D] and logits float32 [B, C], on the CPU."""

ENGINE_SIZES = (8, 32)
"""Batches that an engine is built for; it takes a second each. Fewer images are computed by the backbone itself."""
_FEW = 2
_REDUCED_TOLERANCE = 0.05
"""Largest relative error of features where the number format has 16 bits."""

_log = logging.getLogger("visionadapt")


class Computing(Protocol):
    """What computes the outputs of some runs, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The runs."""

    def outputs(self, pixels: Tensor, rows: Mapping[str, Sequence[int]]) -> dict[str, Outputs]:
        """uint8 [B, 3, S, S] → the outputs of the requested rows of each run."""

    def predictor(self, name: str) -> Predictor:
        """Return a run's predictor, whose classifier computes as trained until the next call."""


class OneRun:
    """A run that shares nothing: its whole network in one engine, as `Predictor.stream` computes it."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        self._name, self._predictor = name, predictor
        self._by_size = {size: _whole(predictor.pipeline, size) for size in sizes(predictor)}

    @property
    def names(self) -> tuple[str, ...]:
        """The run."""
        return (self._name,)

    def outputs(self, pixels: Tensor, rows: Mapping[str, Sequence[int]]) -> dict[str, Outputs]:
        """Compute the rows in batches padded to the next size that an engine was built for."""
        some = pixels[torch.tensor(rows[self._name])]
        return {self._name: self._by_size[fitting(self._by_size, len(some))].outputs(some)}

    def predictor(self, name: str) -> Predictor:
        """Return the run's predictor."""
        return self._predictor


class SharedBackbone:
    """Several runs on one backbone: one copy of its weights, and one forward of the layers before any adapter.

    Raises:
        AdapterError: the runs have different backbones, or one does not agree with what it is alone.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        first = next(iter(predictors.values()))
        self._cut = min(predictor.plan.trained for predictor in predictors.values())
        backbone = copy.deepcopy(first.classifier.backbone)
        if adapters.names(backbone):
            adapters.detach(backbone)
        self._shared = SharedClassifiers(backbone)
        self._layers = {name: f"run{place}" for place, name in enumerate(predictors)}
        for name, predictor in predictors.items():
            self._shared.add(self._layers[name], predictor.classifier)
        self._predictors = {name: self._on_shared(name, each) for name, each in predictors.items()}
        self._check(predictors)
        self._prefix = {size: self._prefix_of(size) for size in sizes(first)}

    @property
    def names(self) -> tuple[str, ...]:
        """The runs."""
        return tuple(self._predictors)

    def outputs(self, pixels: Tensor, rows: Mapping[str, Sequence[int]]) -> dict[str, Outputs]:
        """Compute the shared layers once for each image, and the others once for each image and run."""
        prefix = self._prefix[fitting(self._prefix, len(pixels))]
        size = prefix.plan.prefix_batch
        parts = [prefix.prefix(pad(part, size)) for part in torch.split(pixels, size)]
        state = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        found = {}
        for name, places in rows.items():
            index = torch.tensor(places, device=prefix.plan.device)
            found[name] = self._rest(name, {key: tensor[index] for key, tensor in state.items()}, len(places))
        return found

    def predictor(self, name: str) -> Predictor:
        """Return the predictor of a run on the shared backbone, and switch that to its adapter."""
        attached = adapters.names(self._shared.backbone)
        if attached:
            layer = self._layers[name]
            adapters.switch(self._shared.backbone, *([layer] if layer in attached else []))
        return self._predictors[name]

    @torch.inference_mode()
    def _rest(self, name: str, state: Mapping[str, Tensor], count: int) -> Outputs:
        pipeline = self.predictor(name).pipeline
        features = pipeline.pooled(state, 1 << max(count - 1, 0).bit_length())[:count]
        return features.float().cpu(), pipeline.model.head(features).cpu()

    def _on_shared(self, name: str, predictor: Predictor) -> Predictor:
        """Return a predictor with the shared backbone, which computes from the shared cut on."""
        model = copy.copy(predictor.classifier)
        head = self._shared.heads[self._layers[name]]
        model._modules = {**predictor.classifier._modules, "backbone": self._shared.backbone, "head": head}
        plan = replace(predictor.plan, cut=self._cut)
        return replace(predictor, pipeline=Pipeline(FrozenPart(model), predictor.prepare, plan))

    def _prefix_of(self, size: int) -> Pipeline:
        pipeline = next(iter(self._predictors.values())).pipeline
        plan = replace(pipeline.plan, prefix_batch=size)
        model = pipeline.model
        if size <= _FEW:
            return replace(pipeline, plan=replace(plan, engine="eager"))
        engine = candidates(model, plan.prefix)[0] if plan.engine == "eager" else plan.engine
        sound = engine == "eager" or pipeline.frozen.is_sound(engine, plan.prefix)
        return replace(pipeline, plan=replace(plan, engine=engine if sound else "eager"))

    def _check(self, alone: Mapping[str, Predictor]) -> None:
        """Compare the features of synthetic pixels with those of each run alone, before any engine is built."""
        self._prefix = {_FEW: self._prefix_of(_FEW)}
        prepare, side = self._predictors[self.names[0]].prepare, next(iter(alone.values())).plan.image_size
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(
            0, 256, (_FEW, prepare.decode.channels, side, side), dtype=torch.uint8, generator=generator
        )
        found = self.outputs(pixels, dict.fromkeys(alone, range(_FEW)))
        for name, predictor in alone.items():
            exact = _eager(predictor.pipeline, _FEW).outputs(pixels)
            for own, shared in zip(exact, found[name], strict=True):
                most = TOLERANCE if predictor.plan.prefix_precision == "float32" else _REDUCED_TOLERANCE
                error = float((own - shared).norm() / own.norm().clamp_min(1e-12))
                if error > most:
                    raise AdapterError(f"on the shared backbone, {name} differs by {error:.1e} from what it is alone")


def computing(predictors: Mapping[str, Predictor]) -> list[Computing]:
    """Return what computes the runs, those on one backbone together where they can be."""
    groups: dict[object, dict[str, Predictor]] = {}
    for name, predictor in predictors.items():
        backbone, plan = predictor.classifier.backbone, predictor.plan
        alone = plan.trained == 0 or predictor.classifier.members  # an adapter acts before the first layer
        apart = name if alone else ""
        kind = (backbone.name, backbone.weights_hash, backbone.config, predictor.prepare)
        key = (*kind, plan.device, plan.prefix_precision, apart)
        groups.setdefault(key, {})[name] = predictor
    found: list[Computing] = []
    for group in groups.values():
        if len(group) > 1:
            try:
                found.append(SharedBackbone(group))
                continue
            except AdapterError as error:
                _log.warning("%s do not share a backbone: %s", ", ".join(group), error)
        found += [OneRun(name, predictor) for name, predictor in group.items()]
    return found


def sizes(predictor: Predictor) -> list[int]:
    """Return the sizes that batches are padded to."""
    most = predictor.plan.prefix_batch
    return sorted({*range(1, _FEW + 1), *(min(size, most) for size in ENGINE_SIZES)})


def fitting(sizes: Mapping[int, object], count: int) -> int:
    """Return the least of the sizes that so many images fit in, or the largest."""
    return next((size for size in sizes if size >= count), max(sizes))


def _whole(pipeline: Pipeline, size: int) -> Pipeline:
    """Return the pipeline that computes batches of a size soonest."""
    if size <= _FEW:
        return _eager(pipeline, size)
    return replace(pipeline, plan=replace(pipeline.plan, prefix_batch=size)).for_many()


def _eager(pipeline: Pipeline, size: int) -> Pipeline:
    return replace(pipeline, plan=replace(pipeline.plan, engine="eager", prefix_batch=size))
