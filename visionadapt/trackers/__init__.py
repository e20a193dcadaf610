"""Experiment trackers behind one Protocol: TensorBoard, trackio, MLflow and W&B (extras), or a custom class."""

from __future__ import annotations

from visionadapt.trackers.tracker import TrackedRun, Tracker
from visionadapt.trackers.tracking import Tracking, named

__all__ = ["TrackedRun", "Tracker", "Tracking", "named"]


def __dir__() -> list[str]:
    return sorted(__all__)
