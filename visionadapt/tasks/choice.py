"""The task that a name stands for."""

from __future__ import annotations

from visionadapt.tasks.classification import Classification
from visionadapt.tasks.multilabel import MultiLabel
from visionadapt.tasks.task import Task, TaskName


def plain_task(name: TaskName) -> Task:
    """The task with its plain loss: no smoothing, no weights."""
    return MultiLabel() if name == "multilabel" else Classification()
