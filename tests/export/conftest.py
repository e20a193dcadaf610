"""One small run with adapters, temperature and distance, and its export."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.export.export import export
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.planning import make_plan
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import fit_distance

from ..conftest import SMALL_BACKBONE, tinted

CLASSES = ("blood", "grass", "sky")


def saved_run(run: Path, task: str = "single", adapter: str | None = "lora(rank=2, blocks=last:2)") -> Path:
    model = va.classifier(SMALL_BACKBONE, CLASSES, adapter, "none", 64, task=task)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    if task == "multilabel":
        model.thresholds = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    model.plan = make_plan(FrozenPart(model), va.TrainingSettings(device="cpu", precision="float32")).to_json()
    features = torch.randn(60, model.backbone.num_features, generator=generator).abs()
    distance = fit_distance(features, torch.arange(60) % 3, 3).measured_on(features)
    calibration = Calibration(temperature=1.7 if task == "single" else 1.0, threshold=0.4, images=10, distance=distance)
    file = io.BytesIO()
    tinted((90, 50), 1, 0).convert("CMYK").save(file, "JPEG")
    prepare = va.preprocessing_for(model, policy="squash(64)")
    return va.save(run, model, prepare, calibration=calibration, golden=[("grass/../x.jpg", file.getvalue())])


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("exports") / "exported", prepared=True)
