"""One training run from data to run folder: the same steps for a new and a resumed run.

Every step first looks for what the run folder already holds. Nothing is decided twice.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from visionadapt import auditing, trackers
from visionadapt.commands.choosing import is_choosing, train_candidates
from visionadapt.commands.clock import Clock
from visionadapt.commands.folding import FILE as FOLDS
from visionadapt.commands.folding import train_folds
from visionadapt.commands.going_on import go_on
from visionadapt.commands.keeping import best_so_far, check_before, train_epochs
from visionadapt.commands.preparing import edited, prepared
from visionadapt.commands.refitting import refit
from visionadapt.commands.resolving import resolved
from visionadapt.commands.resuming import check_alike, check_edits, check_source, check_start, resumed_plan
from visionadapt.commands.run import Fitting, Run, TimeOverError
from visionadapt.commands.saving import save_report, save_trained
from visionadapt.commands.searching import Train
from visionadapt.commands.sharding import cache_part, check_part
from visionadapt.commands.summary import summary_of
from visionadapt.console import summaries
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import IMAGES, TrainingSettings
from visionadapt.data.reasons import commonest
from visionadapt.data.split_report import SplitReport
from visionadapt.data.splits import check_usable
from visionadapt.errors import RunError, Terminated
from visionadapt.frozen.cache.eviction import make_room
from visionadapt.frozen.cache.store import space_folder
from visionadapt.frozen.features import Features
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import Job, epochs_in_time, explain
from visionadapt.runs import ledger
from visionadapt.runs.folder import create, is_run, read_json, read_metrics
from visionadapt.runs.options import RunOptions
from visionadapt.runs.saved import load, load_into
from visionadapt.sources.opening import open_source
from visionadapt.system import distributed
from visionadapt.system.locks import FolderLocks
from visionadapt.system.storage import remove_unfinished, write_json
from visionadapt.training.steps import Training
from visionadapt.version import __version__

_USED = 0.95
"""Share of the time that a run which must fit plans for; what a run saves and reports takes time too."""


def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter | None = None) -> Path:
    """Train a classifier with these options; return the run folder.

    Raises:
        UsageError: something is missing, unknown or does not fit.
        DivergenceError, MemoryShortageError: training cannot continue.
    """
    with distributed.joined(settings.device):
        check_part(options, settings)
        run: Train = _train
        if options.minutes is not None or (options.resume and is_choosing(Path(options.resume))):
            trusted = options.resume is None or options.trust_run  # a new search has the options that were given
            again = partial(features_again, trusted=trusted)
            run = partial(train_candidates, train=train_within, again=again)
        elif options.folds is not None or (options.resume and (Path(options.resume) / FOLDS).is_file()):
            run = partial(train_folds, train=partial(_train, part=True))
        return run(options, settings, reporter or Reporter())


def train_within(
    options: RunOptions,
    settings: TrainingSettings,
    reporter: Reporter,
    *,
    fitting: Fitting | None = None,
    like: Path | None = None,
) -> Path:
    """Train as `train` does, and end the run with its best epoch when the time of `options.max_minutes` is over.

    With a `fitting`, it begins with fewer epochs where the time is too short for all. `like` is a run whose images it
    must have.

    Raises:
        TimeOverError: there is no time for a single epoch.
        RunError: the images are not those of that run.
    """
    return _train(options, settings, reporter, ending=True, fitting=fitting, part=True, like=like)


def finish(folder: Path, reporter: Reporter | None = None, *, trusted: bool = False) -> Path:
    """Make the best epoch of a stopped run its model, as if training had ended there; return the run folder.

    A run that was stopped before its last epoch can still be resumed, to the same result as without this. `trusted` is
    the option `--trust-run`.

    Raises:
        RunError: no epoch of the run is complete, or it is no run folder of the train command.
        UsageError, SourceError: its images, weights or libraries are not those that it began with.
    """
    if is_choosing(folder):
        raise RunError(f"{folder} is a search that is not over; go on with visionadapt train --resume {folder}")
    options = RunOptions(resume=str(folder), trust_run=trusted)
    return _train(options, TrainingSettings(), reporter or Reporter(), finishing=True)


def features_again(folder: Path, reporter: Reporter, *, trusted: bool = False) -> tuple[Training, Features, Features]:
    """Return what a run trained on, and the frozen features of its training and validation images, mostly cached.

    The classifier has the weights that the run began with. `trusted` is the option `--trust-run`.
    """
    _, options, settings, _ = resolved(RunOptions(resume=str(folder), trust_run=trusted), TrainingSettings())
    settings = settings.for_model(adapted=options.adapter != "none")
    tracking, locks = trackers.Tracking({}, folder, reporter.say), FolderLocks()
    run = Run(folder, options, settings, reporter, tracking, locks, time.monotonic())
    source = open_source(str(options.data))
    edits = check_edits(folder, options.exclude, resumed=True)
    training = prepared(options, settings, folder, source, edited(source, edits, reporter.detail), reporter.detail)
    plan = resumed_plan(folder, training.model)
    torch.set_num_threads(plan.threads)
    return training, *_features(run, training, training.pipeline(plan))


def _train(
    options: RunOptions,
    settings: TrainingSettings,
    reporter: Reporter,
    *,
    finishing: bool = False,
    ending: bool = False,
    fitting: Fitting | None = None,
    part: bool = False,
    like: Path | None = None,
) -> Path:
    """Train or go on with a run; a `part` of a search or of folds does not say how it goes on, which the whole does."""
    started = time.monotonic()
    folder, options, settings, finished = distributed.from_first(lambda: resolved(options, settings))
    settings = settings.for_model(adapted=options.adapter != "none")
    followed = trackers.named(options.tracker if distributed.is_first() else None)
    tracking, locks = trackers.Tracking(followed, folder, reporter.say), FolderLocks()
    run = Run(folder, options, settings, reporter, tracking, locks, started, finishing, ending, fitting, like)
    try:
        if not finished:
            distributed.from_first(partial(_lock, run))
            _run_steps(run)
        elif distributed.is_first():
            _report_finished(run)
    except TimeOverError:
        if ending:
            raise
        reporter.say(f"{options.max_minutes:g} minutes are over{'' if part else f': {_ways_on(folder)}'}")
        reporter.answer(str(folder))
    except (KeyboardInterrupt, Terminated):
        if is_run(folder) and not part and not distributed.is_ending():
            reporter.say(f"stopped; everything up to the last whole epoch is kept: {_ways_on(folder)}")
        raise
    finally:
        run.tracking.finish(None)
        locks.release()
    return folder


def _ways_on(folder: Path) -> str:
    finishing = f", or take its best epoch: visionadapt finish {folder}" if read_metrics(folder) else ""
    return f"go on with --resume {folder}{finishing}"


def _lock(run: Run) -> None:
    """Lock the run folder, if it is there already and this run will write to it."""
    if not run.options.plan and run.options.shard is None and run.folder.is_dir():
        run.locks.take(run.folder)


def _run_steps(run: Run) -> None:
    options, clock = run.options, Clock()
    with clock.phase("prepare"):
        # 1) Find the rows, build the model, and decide how to compute.
        source = open_source(str(options.data))
        manifest = distributed.from_first(lambda: check_source(run.folder, source, resumed=bool(options.resume)))
        edits = check_edits(run.folder, options.exclude, resumed=bool(options.resume))
        start = check_start(run.folder, options.from_run, resumed=bool(options.resume))
        notes: list[str] = []
        training = prepared(
            run.options, run.settings, run.folder, source, edited(source, edits, run.reporter.say), notes.append
        )
        run = run.decided(training)
        run, training, plan = _planned(run, training)
        # 2) Report the plan, and create the run folder now that the run can begin.
        torch.set_num_threads(plan.threads)
        pipeline = training.pipeline(plan)
        _report_plan(run, training, plan, notes)
        if options.plan:
            return
        if options.shard is not None:
            _make_room(run, pipeline, training.job)
            cache_part(training, pipeline, options.shard, run.reporter)
            return
        if distributed.is_first():
            if options.resume:
                remove_unfinished(run.folder)
                clock.keep_in(run.folder)
                go_on(run.folder, run.settings, partial(check_before, run))
            else:
                found = {"manifest": manifest, "exclude": edits.digest if edits else None, "from": start}
                _create(run, plan, {name: value for name, value in found.items() if value or name != "from"})
                clock.keep_in(run.folder)
            _make_room(run, pipeline, training.job)
        check_alike(training)
    # 3) Run the frozen part, which also finds the rows that cannot be used.
    with clock.phase("features"):
        train, val = _features(run, training, pipeline)
    # 4) Train, keeping a checkpoint after each epoch.
    with clock.phase("train"):
        take = best_so_far if run.finishing else train_epochs
        best = take(run, training, train, val, clock)
    # 5) Save the best epoch, read it back as it will be served, and report.
    if distributed.is_first():
        _save(run, training, (train, val), {**best, "manifest": manifest}, clock)
    distributed.wait_for_all()


def _planned(run: Run, training: Training) -> tuple[Run, Training, Plan]:
    """Return both and their plan; with a fitting, with fewer epochs where the time is too short for all.

    Raises:
        TimeOverError: the run must end in time, and there is no time for an epoch.
    """
    if run.options.resume:
        return run, training, resumed_plan(run.folder, training.model)
    plan, left = training.plan(estimate=True), run.seconds_left()
    if not run.ending or run.settings.solved or math.isinf(left) or not plan.estimate:
        return run, training, plan
    fitting = run.fitting or Fitting()
    slower = {name: fitting.pace * plan.estimate[name] for name in ("begin_seconds", "epoch_seconds")}
    expected = {**plan.estimate, **slower}
    epochs = epochs_in_time(expected, _USED * left, run.settings.epochs)
    if not epochs:
        raise TimeOverError
    fewer = epochs_in_time(expected, _USED * fitting.share * left, run.settings.epochs)
    epochs = fewer if fewer * len(training.rows["train"]) >= IMAGES else epochs
    if run.fitting is None or epochs == run.settings.epochs:
        return run, training, plan
    run.reporter.say(f"there is time for {epochs} of {run.settings.epochs} epochs")
    settings = dataclasses.replace(run.settings, epochs=epochs)
    return dataclasses.replace(run, settings=settings), dataclasses.replace(training, settings=settings), plan


def _report_finished(run: Run) -> None:
    summary = read_json(run.folder, "summary.json")
    metrics = read_metrics(run.folder)[: run.settings.epochs]
    run.tracking.keep_those_behind(len(metrics))
    run.tracking.start(run.names(), metrics)
    run.tracking.finish(summary)
    run.reporter.say(f"{run.folder} is finished already")
    run.reporter.event("summary", {"run": str(run.folder), **summary})
    run.reporter.answer(str(run.folder))


def _report_plan(run: Run, training: Training, plan: Plan, notes: Sequence[str]) -> None:
    """Report the data, the splits and the plan, as far as the user wants to know it."""
    rows, say = training.rows, run.reporter.detail
    splits = SplitReport.of(rows["train"], rows["val"], run.options.val)
    seconds = None if run.options.resume else plan.estimate.get("total_seconds")
    first, *others = summaries.opening_lines(
        str(rows["train"].source), rows["train"].classes, splits.train + splits.val, seconds, run.folder
    )
    for line in (first, str(splits), *([] if run.options.plan or run.options.shard else others), *notes):
        say(line)
    if run.options.plan or run.options.verbose:
        for line in explain(training.model, plan, run.settings, training.job):
            say(line)
    images = {"train": training.job.train, "val": training.job.val}
    facts = {"settings": run.names(), "plan": plan.to_json()}
    run.reporter.event("plan", {"run": str(run.folder), "pictures": images, **facts})


def _create(run: Run, plan: Plan, hashes: Mapping[str, str | None]) -> None:
    lasting = dataclasses.replace(run.options, max_minutes=None)
    stored = {"options": dataclasses.asdict(lasting), "settings": dataclasses.asdict(run.settings)}
    made_by = {"visionadapt": __version__, "python": platform.python_version()}
    config = {**stored, **hashes, "made_by": made_by}
    create(run.folder, {"config.json": config, "plan.json": plan.to_json()}, run.options.overwrite, run.locks)


def _make_room(run: Run, pipeline: Pipeline, job: Job) -> None:
    """Remove the least recently used spaces from the cache if this run needs the room."""
    estimate = pipeline.plan.estimate
    needed = int(estimate.get("bytes_kept", 0) * (1 - estimate.get("cached", 0)))
    spare = space_folder(job.folder, pipeline.description())
    for space in make_room(job.folder, job.room(), needed, spare):
        run.reporter.say(f"removed from the cache: {space}")


def _features(run: Run, training: Training, pipeline: Pipeline) -> tuple[Features, Features]:
    """Compute both splits' features; write the ledger, and report what is wrong with the rows."""
    parts, begun = {}, bool(read_metrics(run.folder))  # the epochs of a run that has some are never given up
    first = run.like if run.like is not None and not (run.folder / ledger.LEDGER).exists() else run.folder
    for name, what in (("train", "training images"), ("val", "validation images")):
        earlier = distributed.from_first(partial(ledger.read_ledger, first, name, training.rows[name]))
        with run.reporter.progress(what) as progress:
            parts[name] = training.features(pipeline, name, earlier, progress if begun else run.watched(progress))
        rejected = ledger.rejected_rows(training.rows[name], parts[name].findings)
        why = f"{len(rejected)} more cannot be used: {commonest(rejected, training.rows[name].source)}"
        more = f"; {why}; see rejected.csv" if rejected else ""
        run.reporter.detail(f"{what}: {len(parts[name])}{more}")
    findings = {name: (training.rows[name], part.findings) for name, part in parts.items()}
    if distributed.is_first() and not (run.folder / ledger.LEDGER).exists():
        ledger.write_ledger(run.folder, findings)
    ledger.check_rejected(run.folder, findings, run.options.max_rejected)
    for line in auditing.quick(findings):
        run.reporter.detail(line)
    check_usable(findings)
    return parts["train"], parts["val"]


def _save(
    run: Run, training: Training, parts: tuple[Features, Features], best: Mapping[str, Any], clock: Clock
) -> None:
    """Save the classifier of the best epoch with its summary and its report."""
    (train, val), folder, device = parts, run.folder, parts[0].pipeline.plan.device
    with clock.phase("save"):
        tell = run.reporter.say if run.options.verbose else _nothing
        metrics = save_trained(folder, train, val, training.rows["val"], run.options.target_precision, tell)
        predictor = load_into(training.frozen, folder, device)
    summary = summary_of(train, val, predictor, best, clock)
    if run.options.fold:
        summary["fold"] = run.options.fold
    if run.options.refit:
        with clock.phase("refit"):
            again = partial(features_again, trusted=True)  # its options are those of this very run
            summary["refit_images"] = refit(folder, best["epoch"], again, run.reporter)
            predictor = load(folder, device, adapter=training.model.adapter)
        summary["golden_difference"] = predictor.golden_difference()
    summary |= clock.facts()
    write_json(folder / "summary.json", summary)
    with clock.phase("report"):
        report = save_report(folder, val.manifest, predictor, run.reporter.say)
    summary |= clock.facts()
    write_json(folder / "summary.json", summary)
    clock.end()
    _report_result(run, summary, metrics, report)


def _nothing(line: str) -> None:
    """Tell nothing."""


def _report_result(run: Run, summary: Mapping[str, Any], metrics: Mapping[str, Any], report: str) -> None:
    adapted, folder = run.options.adapter != "none", shlex.quote(str(run.folder))
    rows = summaries.closing_rows(summary, metrics, adapted, run.options.verbose, folder)
    run.reporter.table("trained", {**rows, "report": report, "run folder": str(run.folder)})
    run.reporter.event("summary", {"run": str(run.folder), **summary})
    run.tracking.finish(summary)
    run.reporter.answer(str(run.folder))
