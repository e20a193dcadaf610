"""TensorBoard: event files in the run folder; `tensorboard --logdir runs` shows the runs below one folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from visionadapt.trackers.tracker import Plain, TrackedRun


class TensorBoard:
    """Writes event files to `tensorboard/` in the run folder."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """What an interrupted run wrote behind the epochs that are known is taken back."""
        folder = run.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.epochs + 1 if run.identity else None)
        if run.identity is None:
            self._text("settings", settings)
        return dataclasses.replace(run, identity=str(folder))

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """One point a figure, brought to the disk."""
        for name, value in metrics.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(metrics["epoch"]))
        self._writer.flush()

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """The summary as text; the files are closed."""
        if summary is not None:
            self._text("summary", summary)
        self._writer.close()

    def _text(self, name: str, values: Mapping[str, Plain]) -> None:
        """Lines of Markdown that are code each, so that nothing in them is markup."""
        lines = (" ".join(f"{key}: {value}".split()) for key, value in values.items())
        self._writer.add_text(name, "\n".join(f"    {line}" for line in lines))
