"""Log to trackio: project TRACKIO_PROJECT in trackio's own files; `trackio show` displays it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import trackio

from visionadapt.trackers.tracker import Plain, TrackedRun


class Trackio:
    """Log to trackio, which uses local files unless its environment variables name a server."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start a run, or resume the same one."""
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "visionadapt"),
            name=run.identity or f"{run.folder.name}-{os.urandom(4).hex()}",
            config=dict(settings),
            resume="never" if run.identity is None else "allow",
            embed=False,
        )
        return dataclasses.replace(run, identity=self._run.name)

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Log one point per metric."""
        figures = {name: value for name, value in metrics.items() if name != "epoch"}
        self._run.log(figures, step=int(metrics["epoch"]))

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Log the summary's numbers as a last point; wait until all is written."""
        if summary is not None:
            self._run.log({f"summary/{name}": value for name, value in summary.items() if not isinstance(value, str)})
        trackio.finish()
