"""The task of a model with the loss and the metric for some training rows: in steps, and as a solved head has it."""

from __future__ import annotations

from dataclasses import replace

from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.model.classifier import Classifier
from visionadapt.tasks import TASKS, Task


def configured_task(model: Classifier, rows: Manifest, settings: TrainingSettings) -> Task:
    """Return the model's task with the loss and the metric for some training rows."""
    counts = dict(zip(model.classes, rows.class_counts(), strict=True))
    return TASKS[model.task].configured(settings, counts, len(rows))


def task_of_the_head(model: Classifier, rows: Manifest, settings: TrainingSettings) -> Task:
    """Return the task as a solved head has it: with a convex loss, and every row once."""
    settings = replace(settings, sampling="every")
    convex = settings.loss not in {"asymmetric", "focal"}
    return configured_task(model, rows, settings if convex else replace(settings, loss="auto"))
