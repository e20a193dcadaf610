"""`Embedder`: what computes the features of images, from a run folder or for a backbone alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from visionadapt.backbones import default_name, load
from visionadapt.core.settings import TrainingSettings
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import Job, make_plan
from visionadapt.model.classifier import Classifier
from visionadapt.model.preprocessing import preprocessing_for
from visionadapt.prediction.calibration import Calibration
from visionadapt.runs import saved
from visionadapt.runs.hub import local_run
from visionadapt.sources.objects.copies import local_file
from visionadapt.system.storage import file_sha256


@dataclass(frozen=True)
class Embedder:
    """What computes features.

    Attributes:
        pipeline: classifier, preprocessing and plan.
        calibration: of the run, which knows the distance to its training images; None for a backbone alone.
        facts: what is said about the vectors besides backbone, weights and preprocessing.
    """

    pipeline: Pipeline
    calibration: Calibration | None
    facts: Mapping[str, Any]


def embedder(
    run: str | None,
    backbone: str | None,
    device: str = "auto",
    weights: str | None = None,
    *,
    images: int = 1,
    workers: int = -1,
    cache: Path | None = None,
    plan: Plan | None = None,
) -> Embedder:
    """Return what computes the features of a run or of a backbone, and set the threads that it computes with.

    Args:
        run: a run folder, or `hf://ORG/NAME`; None for a backbone alone.
        backbone: name of a timm model; None for the default one.
        device: where to compute.
        weights: the backbone's weights; None for those of the run, or pretrained ones.
        images, workers, cache: how much there is to do, and with what, as far as the plan for a backbone depends on it.
        plan: computes a backbone's features in place of a plan of its own.
    """
    if run is not None:
        folder = local_run(run)
        predictor = saved.load(folder, device, weights=weights)
        torch.set_num_threads(predictor.plan.threads)
        facts = {"run": file_sha256(folder / "model.safetensors")}
        return Embedder(predictor.pipeline, predictor.calibration, facts)
    model = Classifier(load(backbone or default_name, local_file(weights or "pretrained")), ("any",), None)
    frozen = FrozenPart(model.eval())
    if plan is None:
        settings = TrainingSettings(device=device, workers=workers)
        plan = make_plan(frozen, settings, Job(train=images, cache=cache))
    model.to(plan.device)
    torch.set_num_threads(plan.threads)
    return Embedder(Pipeline(frozen, preprocessing_for(model), plan), None, {})
