"""One training run from data to run folder: the same steps for a new and a resumed run.

Every step first looks for what the run folder already holds. Nothing is decided twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from visionadapt import auditing, trackers
from visionadapt.commands.resolving import settled
from visionadapt.console import summaries
from visionadapt.console.reporter import Reporter
from visionadapt.core import spec
from visionadapt.core.records import FrozenSource, LocalSource, Manifest, Record, Source
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.splits import SplitReport, check_usable, split, task_of
from visionadapt.errors import ImageError, RunError, Terminated, UsageError, VisionAdaptError
from visionadapt.evaluation.validation import calibration_of, evaluation_of, write_validation
from visionadapt.frozen.cache.eviction import make_room, read_size
from visionadapt.frozen.cache.store import default_folder, space_folder
from visionadapt.frozen.features import Features, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import Job, explain, make_plan
from visionadapt.frozen.timing import versions
from visionadapt.images import Augmentation, Preprocessing, augmentation
from visionadapt.model.classifier import Classifier, classifier
from visionadapt.model.preprocessing import preprocessing_for
from visionadapt.prediction.golden import MOST_IMAGES, golden_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.run_folder import ledger
from visionadapt.run_folder.folder import create, is_run, read_json, read_metrics, write_metrics
from visionadapt.run_folder.options import RunOptions, by_name
from visionadapt.run_folder.saved import load_into, write_trained
from visionadapt.run_folder.tensors import read_checkpoint, write_checkpoint
from visionadapt.sources.opening import open_source
from visionadapt.system import distributed
from visionadapt.system.devices import choose_device
from visionadapt.system.storage import write_json
from visionadapt.training.baselines import majority_accuracy
from visionadapt.training.epochs import Epoch
from visionadapt.training.loop import train_on
from visionadapt.version import __version__


def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter | None = None) -> Path:
    """Train a classifier with these options; return the run folder.

    Raises:
        UsageError: something is missing, unknown or does not fit.
        DivergenceError, MemoryShortageError: training cannot continue.
    """
    with distributed.joined(settings.device):
        return _train(options, settings, reporter or Reporter())


def _train(options: RunOptions, settings: TrainingSettings, reporter: Reporter) -> Path:
    run, options, settings, finished = distributed.from_first(lambda: settled(options, settings))
    followed = trackers.named(options.tracker if distributed.is_first() else None)
    tracking = trackers.Tracking(followed, run, reporter.say)
    try:
        if finished and distributed.is_first():
            _tell_finished(run, options, settings, reporter, tracking)
        if not finished:
            _Training(run, options, settings, reporter, tracking).run_all()
    except (KeyboardInterrupt, Terminated):
        if is_run(run) and not distributed.is_ending():
            reporter.say(f"stopped; everything up to the last whole epoch is kept: go on with --resume {run}")
        raise
    finally:
        tracking.finish(None)
    return run


def _tell_finished(
    run: Path, options: RunOptions, settings: TrainingSettings, reporter: Reporter, tracking: trackers.Tracking
) -> None:
    summary = read_json(run, "summary.json")
    metrics = read_metrics(run)[: settings.epochs]
    tracking.keep_those_behind(len(metrics))
    tracking.start(by_name(options, settings), metrics)
    tracking.finish(summary)
    reporter.say(f"{run} is finished already")
    reporter.event("summary", {"run": str(run), **summary})
    reporter.answer(str(run))


@dataclass
class _Training:
    run: Path
    options: RunOptions
    settings: TrainingSettings
    reporter: Reporter
    tracking: trackers.Tracking
    seconds: dict[str, float] = field(default_factory=dict)
    manifest: str | None = None
    probe_accuracy: float | None = None
    planned: Sequence[str] = ()

    def run_all(self) -> None:
        """Run every step in order; create the run folder once it is clear that the run can begin."""
        with self._phase("prepare"):
            source, settings = open_source(str(self.options.data)), self.settings
            self.manifest = distributed.from_first(lambda: self._frozen(source))
            train_rows, val_rows = split(source, self.options.val, settings.seed, settings.task)
            model = self._model(train_rows)
            model.set_task(task_of(settings.task, train_rows, val_rows))
            prepare = preprocessing_for(model, self.options.resize, scaled=self.options.scaled)
            augment = augmentation(_augment(self.settings.augment))
            job = self._job(source, train_rows, val_rows)
            frozen = FrozenPart(model)
            plan = distributed.from_first(lambda: self._plan(frozen, job, prepare))
            pipeline = Pipeline(frozen, prepare, plan)
            self._tell(model, plan, SplitReport.of(train_rows, val_rows, self.options.val), job)
            if self.options.plan:
                return
            if distributed.is_first():
                if not self.options.resume:
                    self._begin(plan)
                self._make_room(pipeline, job)
            self._check_alike(train_rows, val_rows, model)
        with self._phase("features"):
            train, val = self._features(pipeline, augment, train_rows, val_rows)
        with self._phase("train"):
            best = self._epochs(train, val)
        if distributed.is_first():
            with self._phase("save"):
                figures = self._save(train, val, val_rows)
                predictor = load_into(frozen, self.run, plan.device)
            summary = self._summary(train, val, best, predictor)
            write_json(self.run / "summary.json", summary)
            self._tell_summary(summary, figures, _report(self.run, val.manifest, predictor, self.reporter))
        distributed.wait_for_all()

    def _plan(self, frozen: FrozenPart, job: Job, prepare: Preprocessing) -> Plan:
        resumed = self.options.resume
        return self._resumed_plan(frozen.model) if resumed else make_plan(frozen, self.settings, job, prepare)

    def _check_alike(self, train: Manifest, val: Manifest, model: Classifier) -> None:
        """Raise UsageError if another process has other rows, weights or libraries."""
        if distributed.world_size() > 1:
            keys = hashlib.sha256()
            for part in (train, val):
                for index in range(len(part)):
                    keys.update(f"{part.key(index)}\x1f{list(part.labels(index))}\x1e".encode("utf-8", "surrogatepass"))
            facts = {"pictures": keys.hexdigest()[:12], "weights": model.backbone.weights_hash[:12]}
            distributed.check_alike({**facts, "libraries": dict(versions())})

    def _model(self, train: Manifest) -> Classifier:
        options = self.options
        adapter = None if options.adapter == "none" else spec.parse(options.adapter, "adapter", allow_import=True)
        seed = self.settings.seed
        return classifier(options.backbone, train.classes, adapter, options.weights, options.image_size, seed)

    def _job(self, source: Source, train: Manifest, val: Manifest) -> Job:
        """Return the amount of work, with a few local images to estimate the reading time."""
        limit = read_size(self.options.cache_limit) if self.options.cache_limit else None
        few = (train[index] for index in range(min(len(train), 4))) if isinstance(source, LocalSource) else ()
        sample = [data for record in few if (data := _read(source, record)) is not None]
        return Job(len(train), len(val), self._cache(), limit, sample, self._shared_cache())

    def _make_room(self, pipeline: Pipeline, job: Job) -> None:
        """Remove the least recently used spaces from the cache if this run needs the room."""
        needed = int(pipeline.plan.estimate.get("bytes_kept", 0))
        spare = space_folder(job.folder, pipeline.description())
        for space in make_room(job.folder, job.room(), needed, spare):
            self.reporter.say(f"removed from the cache: {space}")

    def _begin(self, plan: Plan) -> None:
        settings = {"options": dataclasses.asdict(self.options), "settings": dataclasses.asdict(self.settings)}
        made_by = {"visionadapt": __version__, "python": platform.python_version()}
        config = {**settings, "manifest": self.manifest, "made_by": made_by}
        create(self.run, {"config.json": config, "plan.json": plan.to_json()}, self.options.overwrite)

    def _frozen(self, source: Source) -> str | None:
        """Return the hash of a frozen source's rows; raise RunError if the resumed run began with others."""
        now = source.fingerprint if isinstance(source, FrozenSource) else None
        if self.options.resume and read_json(self.run, "config.json").get("manifest") != now:
            raise RunError(f"{source} holds other rows than {self.run} began with; restore it, or start a new run")
        return now

    def _resumed_plan(self, model: Classifier) -> Plan:
        plan = Plan.from_json(read_json(self.run, "plan.json"))
        if (plan.weights_hash, plan.versions) != (model.backbone.weights_hash, versions()):
            raise RunError(f"{self.run} began with other weights or library versions; restore them, or train anew")
        try:
            choose_device(plan.device)
        except UsageError as error:
            there = "which this machine does not have; go on where there is one, or train anew"
            raise RunError(f"{self.run} began on {plan.device}, {there}") from error
        return plan

    def _tell(self, model: Classifier, plan: Plan, division: SplitReport, job: Job) -> None:
        torch.set_num_threads(plan.threads)
        model.to(plan.device)
        model.plan = plan.to_json()
        if not self.options.plan:
            self.reporter.say(f"run folder: {self.run}")
        self.reporter.say(str(division))
        self.planned = explain(model, plan, self.settings, job)
        for line in self.planned:
            self.reporter.say(line)
        facts = {"settings": by_name(self.options, self.settings), "plan": plan.to_json()}
        told = {"run": str(self.run), "pictures": {"train": job.train, "val": job.val}, **facts}
        self.reporter.event("plan", told)

    def _features(
        self,
        pipeline: Pipeline,
        augment: Augmentation,
        train: Manifest,
        val: Manifest,
    ) -> tuple[Features, Features]:
        parts = {
            "train": (train, None if augment.is_none else augment, "training pictures"),
            "val": (val, None, "validation pictures"),
        }
        found = {name: self._part(pipeline, name, *part) for name, part in parts.items()}
        settled = {"train": (train, found["train"].findings), "val": (val, found["val"].findings)}
        if distributed.is_first() and not (self.run / ledger.LEDGER).exists():
            ledger.write_ledger(self.run, settled)
        ledger.check_rejected(self.run, settled, self.options.max_rejected)
        for line in auditing.quick(settled):
            self.reporter.say(line)
        check_usable(found["train"].manifest, found["val"].manifest)
        return found["train"], found["val"]

    def _part(
        self,
        pipeline: Pipeline,
        name: str,
        rows: Manifest,
        augment: Augmentation | None,
        what: str,
    ) -> Features:
        with self.reporter.progress(what) as progress:
            return compute_features(
                pipeline,
                rows,
                self.settings,
                self._cache(),
                augment=augment,
                findings=distributed.from_first(lambda: ledger.read_ledger(self.run, name, rows)),
                progress=progress,
            )

    def _cache(self) -> Path:
        """Return the shared cache, or the run's own for a custom pipeline, which may change under the same name."""
        return self.run / "cache" if ":" in self.settings.augment else self._shared_cache()

    def _shared_cache(self) -> Path:
        return Path(self.options.cache) if self.options.cache else default_folder()

    def _epochs(self, train: Features, val: Features) -> dict[str, Any]:
        """Train to the end; return the metrics of the best epoch."""
        state = distributed.from_first(lambda: read_checkpoint(self.run))
        lines = read_metrics(self.run)[: state.facts["epoch"] if state is not None else 0]
        best = state.facts["best_epoch"] if state is not None else 0
        self.probe_accuracy = state.facts.get("probe_accuracy") if state is not None else None
        self.tracking.start(by_name(self.options, self.settings), lines)
        planned = summaries.planned_rows(self.planned)
        with self.reporter.training(planned, self.settings.epochs, lines) as follower:
            for epoch in train_on(train, val, self.settings, state, follower.step):
                lines.append(epoch.metrics())
                if distributed.is_first():
                    self._keep(epoch, lines)
                follower.epoch(epoch)
                best = epoch.best_epoch
                self.probe_accuracy = epoch.state.facts["probe_accuracy"]
        return lines[best - 1] if distributed.is_first() else {}

    def _keep(self, epoch: Epoch, lines: Sequence[Mapping[str, Any]]) -> None:
        self.tracking.epoch(lines[-1])
        write_metrics(self.run, lines)
        write_checkpoint(self.run, epoch.state)

    def _save(self, train: Features, val: Features, rows: Manifest) -> dict[str, Any]:
        """Write the trained model and its validation results; return the metrics."""
        options = self.options
        wanted = options.target_precision
        calibration, features, logits = calibration_of(train, val, wanted)
        evaluation = evaluation_of(calibration, val, rows, features, logits)
        write_validation(self.run, evaluation)
        self.reporter.say(str(calibration))
        files = ((val.manifest.key(row), val.manifest.read(row)) for row in range(min(len(val), 64)))
        golden = golden_images(val.pipeline, files, logits)
        write_trained(self.run, Predictor(val.pipeline, calibration, golden))
        return evaluation.figures()

    def _summary(
        self,
        train: Features,
        val: Features,
        best: Mapping[str, Any],
        predictor: Predictor,
    ) -> dict[str, Any]:
        model = train.pipeline.model
        images = ledger.count_statuses([*train.findings, *val.findings])
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        total = sum(parameter.numel() for parameter in model.parameters())
        return {
            "task": model.task,
            **{name: value for name, value in best.items() if name.startswith("val_")},
            "majority_accuracy": majority_accuracy(train.labels, val.labels) if model.task == "single" else None,
            "probe_accuracy": self.probe_accuracy,
            "best_epoch": best["epoch"],
            "trainable_parameters": trainable,
            "total_parameters": total,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "images": images,
            "train_images": len(train),
            "val_images": len(val),
            "val_rows": len(val.findings),
            "val_rejected": len(val.findings) - len(val),
            "prefix_forwards": train.computed + val.computed,
            "golden_difference": _to_check_with(predictor, train, val).golden_difference(),
            "manifest": self.manifest,
            "estimate": dict(train.pipeline.plan.estimate),
        }

    def _tell_summary(self, summary: Mapping[str, Any], figures: Mapping[str, Any], report: str) -> None:
        rows = summaries.closing_rows(summary, figures)
        self.reporter.table("trained", {**rows, "report": report, "run folder": str(self.run)})
        self.reporter.event("summary", {"run": str(self.run), **summary})
        self.tracking.finish(summary)
        self.reporter.answer(str(self.run))

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _to_check_with(predictor: Predictor, train: Features, val: Features) -> Predictor:
    """Return the predictor with the eager engine if no features were computed in this run.

    In float32, with only the head trained, the engines are nearly equal, and building one takes longer than the rest
    of such a run.
    """
    plan = predictor.plan
    exact = plan.prefix_precision == "float32" and plan.trained == plan.segments
    if train.computed + val.computed or not exact or not plan.kept:
        return predictor
    few = dataclasses.replace(plan, engine="eager", prefix_batch=MOST_IMAGES)
    return dataclasses.replace(predictor, pipeline=dataclasses.replace(predictor.pipeline, plan=few))


def _report(run: Path, rows: Manifest, predictor: Predictor, reporter: Reporter) -> str:
    """Write the report and return its path; the run is complete without it, so a failure is only reported."""
    from visionadapt.reporting import write_report

    try:
        return str(write_report(run, rows, predictor))
    except VisionAdaptError as error:
        return f"could not be made: {error}"
    except Exception as error:  # noqa: BLE001 - reported with its complete traceback
        reporter.say(traceback.format_exc())
        return f"could not be made, for a mistake in visionadapt ({error!r})"


def _read(source: Source, record: Record) -> bytes | None:
    """Return a row's bytes, or None if they cannot be read, which the pass over all rows reports."""
    try:
        return source.read(record) if record.problem is None else None
    except ImageError:
        return None


def _augment(text: str) -> Any:
    return text if ":" not in text else spec.imported(text)
