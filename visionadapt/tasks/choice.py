"""The table of tasks: the only place that names both."""

from __future__ import annotations

from collections.abc import Mapping

from visionadapt.tasks.classification import Classification
from visionadapt.tasks.multilabel import MultiLabel
from visionadapt.tasks.task import Task, TaskName

TASKS: Mapping[TaskName, type[Task]] = {task.name: task for task in (Classification, MultiLabel)}


def plain_task(name: TaskName) -> Task:
    """Return the task with its plain loss: no smoothing, no weights."""
    return TASKS[name]()
