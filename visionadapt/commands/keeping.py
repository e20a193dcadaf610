"""The epochs of a run: train them and keep a checkpoint after each, or take the best of those that are kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from visionadapt.commands.clock import Clock
from visionadapt.commands.going_on import before_going_on
from visionadapt.commands.run import Run, TimeOverError
from visionadapt.console import summaries
from visionadapt.errors import RunError
from visionadapt.frozen.features import Features
from visionadapt.runs.folder import read_metrics, write_metrics
from visionadapt.runs.tensors import read_checkpoint, write_checkpoint
from visionadapt.system import distributed
from visionadapt.training.epochs import Epoch, TrainingState
from visionadapt.training.steps import Training


def train_epochs(run: Run, training: Training, train: Features, val: Features, clock: Clock) -> dict[str, Any]:
    """Train to the end; return the metrics of the best epoch, and the accuracy of the linear probe."""
    state = distributed.from_first(partial(_state, run))
    facts: Mapping[str, Any] = state.facts if state is not None else {"epoch": 0, "best_epoch": 0}
    lines = read_metrics(run.folder)[: facts["epoch"]]
    run.tracking.start(run.names(), lines)
    if not run.settings.solved:
        run.reporter.detail(summaries.KEPT)
    try:
        if run.ending and run.seconds_left() < _next_epoch(run, train, lines):
            raise TimeOverError
        with run.reporter.training({}, run.settings.epochs, lines) as follower:
            for epoch in training.epochs(train, val, state, run.watched(follower.step)):
                lines.append(epoch.metrics())
                if distributed.is_first():
                    _keep(run, epoch, lines)
                    clock.note()
                follower.epoch(epoch)
                facts = epoch.state.facts
                needed = _next_epoch(run, train, lines) if run.ending else 0.0
                if facts["epoch"] < run.settings.epochs and run.seconds_left() < needed:
                    raise TimeOverError
    except TimeOverError:
        if not (run.ending and lines):
            raise
        return _taken(run, training, train, val, _state(run))
    if facts.get("hopeless"):
        run.reporter.detail(summaries.HOPELESS)
    elif facts.get("flat") and facts["epoch"] < run.settings.epochs:
        run.reporter.detail(summaries.FLAT)
    return _best_of(lines, facts) if distributed.is_first() else {}


def best_so_far(run: Run, training: Training, train: Features, val: Features, clock: Clock) -> dict[str, Any]:
    """Load the best epoch of the checkpoint; return what `train_epochs` does, and the epoch after which it stopped."""
    state = _state(run)
    run.tracking.start(run.names(), read_metrics(run.folder)[: state.facts["epoch"] if state is not None else 0])
    return _taken(run, training, train, val, state)


def _taken(run: Run, training: Training, train: Features, val: Features, state: TrainingState | None) -> dict[str, Any]:
    if state is None:
        raise RunError(f"no epoch of {run.folder} is complete yet; go on with --resume {run.folder}")
    lines = read_metrics(run.folder)[: state.facts["epoch"]]
    ended = training.take_best(train, val, state)
    return {**_best_of(lines, state.facts), "stopped_after": None if ended else len(lines)}


def _next_epoch(run: Run, train: Features, lines: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds that the next epoch is likely to take; a solved head, which nothing follows, has its time."""
    if run.settings.solved:
        return -math.inf
    if lines:
        return float(statistics.median(line["seconds"] for line in lines))
    expected = train.pipeline.plan.estimate
    pace = 1.0 if run.fitting is None else run.fitting.pace
    return pace * (expected.get("begin_seconds", 0.0) + expected.get("epoch_seconds", 0.0))


def check_before(run: Run, before: Mapping[str, Any]) -> None:
    """Raise RunError if the checkpoint is not that of the run as it was before it gets more epochs."""
    fixed = {**run.fixed(), **before}
    read_checkpoint(run.folder, fixed, lambda line: None, before_going_on(run.folder, fixed))


def _best_of(lines: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of the best epoch or the solved head, and how it compares with the solved head."""
    best = lines[facts["best_epoch"] - 1] if facts["best_epoch"] else facts["solved_metrics"]
    told = {"only": facts.get("only", (0, 0)), "hopeless": bool(facts.get("hopeless"))}
    return {**best, "probe_accuracy": facts.get("probe_accuracy"), **told}


def _state(run: Run) -> TrainingState | None:
    """Return the state of the last epoch of a run that is resumed; None where there is none."""
    fixed = run.fixed()
    return read_checkpoint(run.folder, fixed, run.reporter.say, before_going_on(run.folder, fixed))


def _keep(run: Run, epoch: Epoch, lines: Sequence[Mapping[str, Any]]) -> None:
    run.tracking.epoch(lines[-1])
    write_metrics(run.folder, lines)
    write_checkpoint(run.folder, epoch.state, run.fixed())
