"""What is to be learned: the head, its loss and its figures. Single-label classification so far."""

from visionadapt.tasks.classification import Classification, balanced_weights
from visionadapt.tasks.head import ClassificationHead
from visionadapt.tasks.metrics import ConfusionMatrix

__all__ = ["Classification", "ClassificationHead", "ConfusionMatrix", "balanced_weights"]
