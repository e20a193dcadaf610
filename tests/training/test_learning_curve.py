"""A learning curve: its end is the solved head itself, and shares grow with images of one group drawn together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import visionadapt as va
from visionadapt.core.settings import TrainingSettings
from visionadapt.frozen.features import Features
from visionadapt.frozen.planning import Job
from visionadapt.images import augmentation
from visionadapt.training.configured import task_of_the_head
from visionadapt.training.learning_curve import SHARES, learning_curve
from visionadapt.training.steps import Training

from ..conftest import SMALL_BACKBONE

SETTINGS = TrainingSettings(workers=0).for_model(adapted=False)


def noisy(folder: Path) -> Path:
    """Six classes of noise that differ in brightness by less than the images of a class do."""
    random = np.random.default_rng(0)
    for label in range(6):
        (folder / str(label)).mkdir(parents=True)
        for number in range(60):
            brightness = 90 + 9 * label + random.normal(0, 14)
            pixels = (brightness + random.normal(0, 30, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Training, dict[str, Features]]:
    parts = va.split(va.sources.FolderSource(noisy(tmp_path / "data")), val=0.4, seed=0)
    rows = dict(zip(("train", "val"), parts, strict=True))
    model = va.classifier(SMALL_BACKBONE, rows["train"].classes, None, "none", 32, 0)
    job = Job(len(rows["train"]), len(rows["val"]), tmp_path / "cache")
    training = Training(model, rows, va.preprocessing_for(model), augmentation("none"), SETTINGS, job)
    pipeline = training.pipeline(training.plan())
    return training, {split: training.features(pipeline, split) for split in rows}


@pytest.mark.slow
def test_its_end_is_the_head_that_a_run_solves(prepared: tuple[Training, dict[str, Any]]) -> None:
    training, features = prepared
    task = task_of_the_head(training.model, training.rows["train"], SETTINGS)
    points = learning_curve(features["train"], features["val"], task)
    (epoch,) = training.epochs(features["train"], features["val"])
    assert 0.2 < epoch.val_score < 1  # neither chance nor certain, so that another head would differ
    assert points[-1].score == epoch.val_score
    count = len(training.rows["train"])
    assert [point.images for point in points] == [round(share * count) for share in SHARES]
    again = learning_curve(features["train"], features["val"], task)
    assert again == points
