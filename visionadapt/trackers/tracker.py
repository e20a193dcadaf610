"""The tracker interface: start or resume a run, log an epoch's metrics, and finish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Plain = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """The state of a run in a tracker.

    Attributes:
        folder: the run folder.
        identity: the tracker's own name for the run; None before the run has started.
        epochs: number of epochs logged so far.
    """

    folder: Path
    identity: str | None = None
    epochs: int = 0


class Tracker(Protocol):
    """Track one run. If a tracker raises, it is dropped, and the run continues."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start the run, or resume it if it has an identity; return it with its identity and number of epochs."""

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Log the metrics of the next epoch; they include its number `epoch`, from 1."""

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Finish with the results; None if the run was interrupted and may be resumed."""
