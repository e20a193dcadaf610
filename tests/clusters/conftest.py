"""A classifier, and images to classify."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import make_plan

from ..conftest import SMALL_BACKBONE, tinted

COUNT = 135
"""Images of each class: so many in all that one process computes them in bulk too."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("blood", "grass")):
        (root / name).mkdir()
        for index in range(COUNT):
            tinted((40 + index % 7, 40), label, 1000 * label + index).save(root / name / f"{index}.png")
    (root / "grass" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, whose classifier has a random head."""
    model = va.classifier(SMALL_BACKBONE, ("blood", "grass"), None, "none", 64)
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    plan = make_plan(FrozenPart(model.eval()), va.TrainingSettings(device="cpu", precision="float32"))
    predictor = va.Predictor(Pipeline(FrozenPart(model), va.preprocessing_for(model), plan))
    return va.save(tmp_path_factory.mktemp("runs") / "run", predictor)
