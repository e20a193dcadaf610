"""What is to be learned, one class a picture or several: the head, the losses and their figures."""

from visionadapt.metrics.confusion import ConfusionMatrix
from visionadapt.metrics.multilabel import LabelCounts, average_precision, best_thresholds, mean_average_precision
from visionadapt.tasks.choice import plain_task
from visionadapt.tasks.classification import Classification, balanced_weights
from visionadapt.tasks.head import ClassificationHead
from visionadapt.tasks.multilabel import MultiLabel, positive_weights
from visionadapt.tasks.task import Task, TaskName, Validation

__all__ = [
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
    "plain_task",
    "positive_weights",
]
