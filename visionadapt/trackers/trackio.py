"""trackio: a run of the project that TRACKIO_PROJECT names, in files of its own; `trackio show` shows it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import trackio

from visionadapt.trackers.tracker import Plain, TrackedRun


class Trackio:
    """Tells trackio, which keeps its own files unless its environment variables name a server."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """A run that goes on is the same one there."""
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "visionadapt"),
            name=run.identity or f"{run.folder.name}-{os.urandom(4).hex()}",
            config=dict(settings),
            resume="never" if run.identity is None else "allow",
            embed=False,
        )
        return dataclasses.replace(run, identity=self._run.name)

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """One point a figure."""
        figures = {name: value for name, value in metrics.items() if name != "epoch"}
        self._run.log(figures, step=int(metrics["epoch"]))

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Numbers of the summary as a last point; waits until all is written."""
        if summary is not None:
            self._run.log({f"summary/{name}": value for name, value in summary.items() if not isinstance(value, str)})
        trackio.finish()
