"""Log to TensorBoard: event files in the run folder; `tensorboard --logdir runs` shows all runs below `runs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from visionadapt.trackers.tracker import Plain, TrackedRun


class TensorBoard:
    """Write event files to `tensorboard/` in the run folder."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start or resume a run; events after the last known epoch are purged."""
        folder = run.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.epochs + 1 if run.identity else None)
        if run.identity is None:
            self._text("settings", settings)
        return dataclasses.replace(run, identity=str(folder))

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Log one point per metric and flush."""
        for name, value in metrics.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(metrics["epoch"]))
        self._writer.flush()

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Log the summary as text and close the files."""
        if summary is not None:
            self._text("summary", summary)
        self._writer.close()

    def _text(self, name: str, values: Mapping[str, Plain]) -> None:
        """Log lines as Markdown code, so that their content is not markup."""
        lines = (" ".join(f"{key}: {value}".split()) for key, value in values.items())
        self._writer.add_text(name, "\n".join(f"    {line}" for line in lines))
