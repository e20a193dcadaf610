"""Log to MLflow: experiment MLFLOW_EXPERIMENT_NAME on server MLFLOW_TRACKING_URI."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from visionadapt.trackers.tracker import Plain, TrackedRun

_LONGEST_VALUE = 500
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""A server that does not respond must not block a run for long."""


class MLflow:
    """Log to an MLflow server, or to MLflow's local files if none is set."""

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
        self._run = self._client.create_run(self._experiment(), run_name=run.folder.name).info.run_id
        for name, value in settings.items():
            self._client.log_param(self._run, name, str(value)[:_LONGEST_VALUE])
        return dataclasses.replace(run, identity=self._run)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "visionadapt")
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

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
