"""Tasks: one class per image, or any number. Losses, the head, and deciding, scoring and tabulating predictions.

Belongs here: everything that depends on the task. Not here: metric formulas, or running a model.
"""

from collections.abc import Mapping

from visionadapt.metrics.counts import ConfusionMatrix
from visionadapt.metrics.multilabel import LabelCounts, average_precision, best_thresholds, mean_average_precision
from visionadapt.tasks.classification import Classification, balanced_weights
from visionadapt.tasks.head import ClassificationHead
from visionadapt.tasks.multilabel import MultiLabel, positive_weights
from visionadapt.tasks.task import Task, TaskName, Validation, no_thresholds

__all__ = [
    "TASKS",
    "Classification",
    "ClassificationHead",
    "ConfusionMatrix",
    "LabelCounts",
    "MultiLabel",
    "Task",
    "TaskName",
    "Validation",
    "average_precision",
    "balanced_weights",
    "best_thresholds",
    "mean_average_precision",
    "no_thresholds",
    "plain_task",
    "positive_weights",
]


TASKS: Mapping[TaskName, type[Task]] = {task.name: task for task in (Classification, MultiLabel)}


def plain_task(name: TaskName) -> Task:
    """Return the task with its plain loss: no smoothing, no weights."""
    return TASKS[name]()


def __dir__() -> list[str]:
    return sorted(__all__)
