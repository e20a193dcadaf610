"""TensorBoard, trackio, MLflow and W&B as trackers; each library is imported when a run starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from visionadapt.trackers.tracker import Plain, TrackedRun

_LONGEST_VALUE = 500
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""An MLflow server that does not respond must not block a run for long."""


class TensorBoard:
    """Write event files to `tensorboard/` in the run folder; `tensorboard --logdir runs` shows all runs in `runs`."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start or resume a run; events after the last known epoch are purged."""
        from torch.utils.tensorboard import SummaryWriter

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


class Trackio:
    """Log to project TRACKIO_PROJECT of trackio: local files, unless its environment variables name a server."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start a run, or resume the same one."""
        import trackio

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
        import trackio

        if summary is not None:
            self._run.log({f"summary/{name}": value for name, value in summary.items() if not isinstance(value, str)})
        trackio.finish()


class MLflow:
    """Log to experiment MLFLOW_EXPERIMENT_NAME on server MLFLOW_TRACKING_URI, or in local files if none is set."""

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start or resume a run; epochs that MLflow already has are not logged again."""
        for variable, text in _PATIENCE.items():
            os.environ.setdefault(variable, text)
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if run.identity is not None:
            self._run = run.identity
            self._client.update_run(self._run, status="RUNNING")
            known = [point.step for point in self._client.get_metric_history(self._run, "train_loss")]
            return dataclasses.replace(run, epochs=max(known, default=0))
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "visionadapt")
        found = self._client.get_experiment_by_name(title)
        experiment = str(self._client.create_experiment(title) if found is None else found.experiment_id)
        self._run = self._client.create_run(experiment, run_name=run.folder.name).info.run_id
        for name, value in settings.items():
            self._client.log_param(self._run, name, str(value)[:_LONGEST_VALUE])
        return dataclasses.replace(run, identity=self._run)

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Log one point per metric; `train_loss`, which marks an epoch as logged, comes last."""
        number = int(metrics["epoch"])
        for name in sorted(set(metrics) - {"epoch"}, key=lambda name: (name == "train_loss", name)):
            self._client.log_metric(self._run, name, metrics[name], step=number)

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Log the summary: numbers as metrics, strings as tags. An interrupted run is marked as killed."""
        for name, value in (summary or {}).items():
            if isinstance(value, str):
                self._client.set_tag(self._run, f"summary/{name}", value)
            else:
                self._client.log_metric(self._run, f"summary/{name}", float(value))
        self._client.set_terminated(self._run, "KILLED" if summary is None else "FINISHED")


class WandB:
    """Log to project WANDB_PROJECT of Weights & Biases, or with WANDB_MODE=offline to `wandb/` in the run folder.

    It learns the settings and metrics alone: neither the command line, which may hold secrets, nor code, git or output.
    """

    def start(self, run: TrackedRun, settings: Mapping[str, Plain]) -> TrackedRun:
        """Start or resume a run; a server that does not respond in a minute fails."""
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "visionadapt"),
            name=run.folder.name,
            id=run.identity or os.urandom(8).hex(),
            dir=str(run.folder),
            config=dict(settings),
            resume="never" if run.identity is None else "allow",
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                init_timeout=60,
                login_timeout=20,
                save_code=False,
                silent=True,
                x_disable_meta=True,
            ),
        )
        return dataclasses.replace(run, identity=self._run.id)

    def epoch(self, metrics: Mapping[str, int | float]) -> None:
        """Log one point per metric."""
        figures = {name: value for name, value in metrics.items() if name != "epoch"}
        self._run.log(figures, step=int(metrics["epoch"]))

    def finish(self, summary: Mapping[str, Plain] | None) -> None:
        """Log the summary, and wait until all is written. An interrupted run is marked as failed."""
        for name, value in (summary or {}).items():
            self._run.summary[f"summary/{name}"] = value
        self._run.finish(exit_code=int(summary is None))
