"""Tasks: one class per image, or any number. Losses, the head, and how answers are decided, scored and tabulated.

Belongs here: everything that depends on the task. Not here: formulas of metrics, or running a model.
"""

from visionadapt.metrics.confusion import ConfusionMatrix
from visionadapt.metrics.multilabel import LabelCounts, average_precision, best_thresholds, mean_average_precision
from visionadapt.tasks.choice import TASKS, plain_task
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


def __dir__() -> list[str]:
    return sorted(__all__)
