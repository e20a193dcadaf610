"""`Training`: what a run trains and the steps of it, as `fit` and the train command take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings, WantedTask
from visionadapt.core.sharding import Shard
from visionadapt.data.dataset import Finding
from visionadapt.data.splits import task_of
from visionadapt.errors import UsageError
from visionadapt.frozen.features import Features, Progress, cached_share, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import Job, make_plan
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.system import distributed
from visionadapt.training.configured import configured_task
from visionadapt.training.epochs import Epoch, TrainingState
from visionadapt.training.mixing import mixer_for
from visionadapt.training.trainer import Trainer


@dataclass(frozen=True)
class Training:
    """A classifier, the rows to train it on, and how. Its methods are the steps of a run, in their order.

    1. `plan` decides where the model is cut, which engine runs the frozen part, and what is cached.
    2. `pipeline` moves the model to the plan's device.
    3. `features` runs the frozen part once per image and view, for each of the two splits.
    4. `epochs` trains on the features.

    Attributes:
        model: trained in place; it becomes a multi-label one if the rows have several labels.
        rows: the splits `train` and `val`.
        prepare: decoding, resizing and normalisation.
        augment: augmentation of the training images.
        settings: how to train; the number of epochs is decided here if it was not given.
        job: the amount of work, and where features are cached.
    """

    model: Classifier
    rows: dict[str, Manifest]
    prepare: Preprocessing
    augment: Augmentation
    settings: TrainingSettings
    job: Job
    frozen: FrozenPart = field(init=False)

    def __post_init__(self) -> None:
        if self.model.members:
            raise UsageError("an ensemble is not trained as a whole; train its members, and put them together again")
        self.model.set_task(task_of(self._wanted_task(), self.rows["train"], self.rows["val"]))
        object.__setattr__(self, "settings", self.settings.for_images(len(self.rows["train"])))
        configured_task(self.model, self.rows["train"], self.settings)  # refuses what does not fit, before any work
        object.__setattr__(self, "frozen", FrozenPart(self.model))

    def plan(self, *, estimate: bool = False) -> Plan:
        """Decide how to compute, the same in every process; with `estimate`, measure what the run will take."""
        prepare = self.prepare if estimate else None
        made = partial(make_plan, self.frozen, self.settings, self.job, prepare, self._cached_share)
        return distributed.from_first(made)

    def pipeline(self, plan: Plan) -> Pipeline:
        """Return what computes by a plan: this run's own, or the one that an interrupted run began with."""
        mixer_for(self.model.backbone, self.settings, plan)  # refuses a cut that it cannot mix at, before any work
        self.model.to(plan.device)
        self.model.plan = plan.to_json()
        return Pipeline(self.frozen, self.prepare, plan)

    def features(
        self,
        pipeline: Pipeline,
        split: str,
        findings: Sequence[Finding] | None = None,
        progress: Progress | None = None,
        shard: Shard | None = None,
    ) -> Features:
        """Compute or look up the features of a split, or of its rows in a part of all.

        The other arguments are those of `compute_features`.
        """
        rows, augment = self.rows[split], self._augment_of(split)
        if shard is not None:
            rows = rows.select(row for row in range(len(rows)) if shard.holds(rows.key(row)))
        return compute_features(
            pipeline, rows, self.settings, self.job.folder, augment=augment, findings=findings, progress=progress
        )

    def epochs(
        self,
        train: Features,
        val: Features,
        state: TrainingState | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Epoch]:
        """Train from the beginning, or resume after the epoch that returned `state`; take the best epoch at the end.

        `progress` is called after each step with the number of steps done and the steps per epoch.
        """
        trainer = Trainer(train, val, self.settings, progress)
        if state is None:
            trainer.begin()
        else:
            trainer.restore(state)
        while not trainer.finished():
            yield trainer.epoch()
        trainer.take_best()

    def take_best(self, train: Features, val: Features, state: TrainingState) -> bool:
        """Load the best epoch up to the one that returned `state`; return whether training had ended there."""
        trainer = Trainer(train, val, self.settings)
        trainer.restore(state)
        trainer.take_best()
        return trainer.finished()

    def _augment_of(self, split: str) -> Augmentation | None:
        return self.augment if split == "train" and not self.augment.is_none else None

    def _cached_share(self, pipeline: Pipeline) -> float:
        """Return the share of all images and views that is cached already."""
        done = total = 0.0
        for split, rows in self.rows.items():
            augment = self._augment_of(split)
            images = len(rows) * (1 if augment is None else pipeline.plan.views)
            done += images * cached_share(pipeline, rows, self.settings, self.job.folder, augment)
            total += images
        return done / total if total else 0.0

    def _wanted_task(self) -> WantedTask:
        wanted = self.settings.task
        return "multilabel" if wanted == "auto" and self.model.task == "multilabel" else wanted
