"""What a tracker of experiments can do: begin a run or go on with it, take an epoch's figures, and end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Plain = str | int | float | bool


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker knows it.

    Attributes:
        folder: the run folder.
        identity: what the tracker itself calls the run; None before it has begun.
        epochs: how many epochs the tracker has been told of.
    """

    folder: Path
    identity: str | None = None
    epochs: int = 0


class Tracker(Protocol):
    """Follows one run. Whatever it raises ends its part in the run, and never the run."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Begin, or go on where `run.identity` says so; return the run with its identity and the epochs known."""

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Take the figures of the next epoch; its number, from 1 on, is among them."""

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """End, with what came out; None where the run was stopped, and may go on."""
