"""Decide how a run computes: each decision is one function of measured facts, with a reason to display."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from visionadapt.core.settings import TrainingSettings
from visionadapt.data.loading import choose_workers
from visionadapt.frozen.cache.eviction import spaces
from visionadapt.frozen.engines import Prefix, candidates, check_engine
from visionadapt.frozen.memory import enough_memory
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.timing import Measurements, about, engine_figures, read_seconds, step_seconds, versions
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.system.cache_folder import default_folder
from visionadapt.system.devices import choose_device, choose_precision, choose_prefix_precision
from visionadapt.system.text import percent, written_size

T = TypeVar("T")

PREFIX_BATCH = 32
_FORWARD = 0.5
"""Share of the time of a step that its forward pass takes: all of it where a head is solved or validated."""
SMALL_JOB = 256
"""Number of images below which the backbone runs as is: building an engine would take as long."""


@dataclass(frozen=True)
class Job:
    """The amount of work: rows, the cache, and contents of a few image files, to estimate the reading time.

    `cache_limit` None is half of the available disk space. `measurements` is the folder of this machine's measurements
    if the cache is temporary.
    """

    train: int = 0
    val: int = 0
    cache: Path | None = None
    cache_limit: int | None = None
    sample: Sequence[bytes] = ()
    measurements: Path | None = None

    @property
    def measured(self) -> Measurements:
        """Measurements of this machine."""
        return Measurements(self.measurements or self.folder)

    @property
    def folder(self) -> Path:
        """The cache folder."""
        return self.cache or default_folder()

    def room(self) -> int:
        """Return the total number of bytes that the cache may hold."""
        used = sum(space.bytes for space in spaces(self.folder))
        possible = used + free_bytes(self.folder)
        return min(possible, self.cache_limit) if self.cache_limit is not None else possible // 2


def make_plan(
    frozen: FrozenPart,
    settings: TrainingSettings,
    job: Job | None = None,
    prepare: Preprocessing | None = None,
    cached: Callable[[Pipeline], float] | None = None,
) -> Plan:
    """Decide how to train a classifier with these settings on this machine; move it to the device.

    Without a preprocessing or a job, the amount of work, there is no estimate of time and space. `cached` returns the
    share of the work whose results are in the cache already. It changes the estimate, and no decision: the same job
    finds its features again.
    """
    job = job or Job()
    device = choose_device(settings.device)
    with enough_memory(str(device)):
        frozen.model.to(device)
        plan, size = _planned(frozen, settings, job, device)
        if prepare is None or not job.train + job.val:
            return plan
        pipeline = Pipeline(frozen, prepare, plan)
        share = 0.0 if cached is None else cached(pipeline)
        expected: dict[str, float] = _if_it_fits(lambda: estimate(pipeline, settings, job, size, share), {})
        return dataclasses.replace(plan, estimate=expected)


def plan_for(frozen: FrozenPart, job: Job | None = None) -> Plan:
    """Return the plan that a classifier was trained with; if it has none, make one for its device.

    The plan is stored in the classifier, so that later steps compute the same way.
    """
    model = frozen.model
    if model.plan is None:
        device = str(next(model.parameters()).device)
        model.plan = make_plan(frozen, TrainingSettings(device=device), job).to_json()
    return Plan.from_json(model.plan)


def _planned(frozen: FrozenPart, settings: TrainingSettings, job: Job, device: torch.device) -> tuple[Plan, int]:
    """Return a plan without an estimate, and the bytes of an image at its cut."""
    model = frozen.model
    precision = choose_prefix_precision(settings.precision, device)
    views = settings.views if settings.solved else min(settings.views, settings.epochs)
    views = 0 if settings.augment == "none" else views
    images = job.train * max(views, 1) + job.val
    trained = choose_cut(model)
    sizes = bytes_at_cuts(model, precision) if images else [0] * (trained + 1)
    cut, kept = choose_kept(settings.keep, sizes, trained, images, job.room() if images else 0)
    prefix = Prefix(cut, precision, str(device), PREFIX_BATCH, torch.get_num_threads())
    plan = Plan(
        backbone=model.backbone.name,
        weights_hash=model.backbone.weights_hash,
        image_size=model.backbone.config.image_size,
        cut=cut,
        trained=trained,
        segments=len(model.backbone.segments),
        kept=kept,
        engine=_if_it_fits(lambda: choose_engine(frozen, prefix, settings.engine, images, job.measured), "eager"),
        views=views,
        precision=choose_precision(settings.precision, device),
        prefix_precision=precision,
        device=prefix.device,
        threads=prefix.threads,
        prefix_batch=PREFIX_BATCH,
        batch_size=settings.batch_size,
        versions=versions(),
    )
    return plan, sizes[cut]


def _if_it_fits(measure: Callable[[], T], otherwise: T) -> T:
    """Return a measurement, or `otherwise` where the memory is too small for it: the run uses smaller batches."""
    try:
        return measure()
    except torch.OutOfMemoryError:
        return otherwise


def choose_cut(model: Classifier) -> int:
    """Return the index of the first segment with trainable parameters; the number of segments if only the head has any.

    Parameters of the stem and after the last block cannot be distinguished here: the cut is then 0.
    """
    owner = {
        id(parameter): position
        for position, segment in reversed([*enumerate(model.backbone.segments)])  # of shared ones, the first counts
        for part in segment.parts
        if isinstance(part, nn.Module)
        for parameter in part.parameters()
    }
    positions = [owner.get(id(parameter), 0) for parameter in model.backbone.parameters() if parameter.requires_grad]
    return min(positions, default=len(model.backbone.segments))


def bytes_at_cuts(model: Classifier, precision: str) -> list[int]:
    """Return the bytes per image at every cut: uint8 pixels at the first, tensors in the number format after it."""
    size = getattr(torch, precision).itemsize
    shapes = [sum(math.prod(shape) for shape in tensors.values()) for tensors in model.backbone.cut_shapes()]
    return [shapes[0], *(count * size for count in shapes[1:])]


def choose_kept(requested: str, sizes: Sequence[int], trained: int, images: int, room: int) -> tuple[int, bool]:
    """Return the cut whose tensors are cached, and whether anything is cached.

    This is the deepest cut before everything trained whose tensors fit into `room` bytes; if none fits, nothing is
    cached and the frozen part runs in every epoch. `requested` is a value of `--keep`, `sizes` are the bytes per image
    at every cut, and `images` counts each view.
    """
    if requested != "auto":
        return (0 if requested == "pixels" else trained), requested != "nothing"
    fitting = [cut for cut in range(trained + 1) if sizes[cut] * images <= room]
    return (max(fitting), True) if fitting else (trained, False)


def choose_engine(frozen: FrozenPart, prefix: Prefix, request: str, images: int, measured: Measurements) -> str:
    """Return the fastest engine for the frozen part whose output agrees with eager float32.

    A small job runs the backbone as is. A job of up to a minute takes the likeliest engine that agrees; only a longer
    job is worth trying them all, and the choice is then remembered for this backbone on this machine. Raise UsageError
    if the requested engine is not available.
    """
    if request != "auto":
        check_engine(request, prefix.device)
        return request if prefix.cut == 0 or frozen.can_build(request, prefix) else "eager"
    if prefix.cut == 0 or images < SMALL_JOB:
        return "eager"

    def figures(name: str) -> dict[str, float]:
        return engine_figures(name, frozen, prefix, measured)

    def cost(name: str) -> float:
        return figures(name)["seconds_to_build"] + images * figures(name)["seconds_a_picture"]

    first = next(name for name in candidates(frozen.model, prefix) if figures(name)["agrees"])
    names = candidates(frozen.model, prefix, frozen_seconds=images * figures(first)["seconds_a_picture"])
    if names == candidates(frozen.model, prefix):
        return first
    what = {"engine of a long job": names, **about(frozen, prefix)}
    agreeing = [name for name in names if figures(name)["agrees"]]
    chosen: str = measured.once(what, lambda: min(agreeing, key=cost))
    return chosen


def free_bytes(folder: Path) -> int:
    """Return the free disk space where a folder is or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def estimate(
    pipeline: Pipeline, settings: TrainingSettings, job: Job, size: int, cached: float = 0.0
) -> dict[str, float]:
    """Estimate the seconds and bytes that a run needs.

    `size` is the bytes of an image at the cut, `cached` the share of the images whose tensors there are cached already.
    """
    plan, measured = pipeline.plan, job.measured
    images = job.train * max(plan.views, 1) + job.val
    small = images < SMALL_JOB and plan.engine == "eager"
    prefix = dataclasses.replace(plan.prefix, batch=4) if small else plan.prefix
    engine = engine_figures(plan.engine, pipeline.frozen, prefix, measured) if plan.cut else {"seconds_a_picture": 0.0}
    processes = max(choose_workers(settings.workers, job.train + job.val), 1)
    read = read_seconds(pipeline.prepare, job.sample) * (job.train + job.val) / processes
    frozen = engine["seconds_a_picture"] * images
    step = step_seconds(pipeline, measured)
    begin = 0.0 if settings.solved else step * _FORWARD * (job.train + job.val)
    epoch = step * (job.train + _FORWARD * job.val)
    epoch += 0 if plan.kept else (read + frozen) / max(plan.views, 1)
    read, frozen = read * (1 - cached), frozen * (1 - cached)
    seconds = {"read": read, "prefix": frozen if plan.kept else 0.0, "begin": begin, "epoch": epoch}
    total = read + seconds["prefix"] + begin + epoch * settings.epochs
    return {
        **{f"{name}_seconds": round(value, 3) for name, value in {**seconds, "total": total}.items()},
        "bytes_a_picture": size,
        "bytes_kept": size * images if plan.kept else 0,
        "cached": round(cached, 3),
        **({"engine_error": engine["error"]} if "error" in engine else {}),
    }


def epochs_in_time(expected: Mapping[str, float], seconds: float, epochs: int) -> int:
    """Return how many of the wanted epochs fit into so many seconds, by what `estimate` returned.

    >>> expected = {"read_seconds": 2.0, "prefix_seconds": 8.0, "begin_seconds": 2.0, "epoch_seconds": 4.0}
    >>> epochs_in_time(expected, seconds=64.0, epochs=20), epochs_in_time(expected, seconds=15.0, epochs=20)
    (13, 0)
    """
    left = seconds - sum(expected[f"{name}_seconds"] for name in ("read", "prefix", "begin"))
    return min(max(int(left / max(expected["epoch_seconds"], 1e-9)), 0), epochs)


def explain(model: Classifier, plan: Plan, settings: TrainingSettings, job: Job) -> list[str]:
    """Return the plan's decisions, one per line, with reasons and estimates."""
    views = f"{plan.views} augmented ones per training image, in turn" if plan.views else "the images as they are"
    return [
        _about_cut(model, plan),
        _about_keeping(plan, job, settings.keep),
        f"views: {views}",
        *_about_head(settings),
        _about_engine(plan),
        f"batches: {plan.batch_size} images per step, {plan.prefix_batch} per frozen forward; "
        f"{choose_workers(settings.workers, job.train + job.val)} processes read",
        *_about_time(plan, settings),
    ]


def _about_cut(model: Classifier, plan: Plan) -> str:
    trained, segments = plan.trained, model.backbone.segments
    undivided = model.backbone.anatomy.undivided
    if trained < len(segments) and undivided:
        return f"frozen: nothing, since {plan.backbone} is one block ({undivided}); --adapter none trains only the head"
    if trained == 0:
        return "frozen: nothing, since the stem has something to train"
    whole = trained == len(segments)
    what = f"the whole of {plan.backbone}" if whole else f"{plan.backbone} up to {segments[trained].name}"
    where = "" if plan.cut == trained else f"; what is kept lies before {segments[plan.cut].name}"
    return f"frozen: {what}, computed {'once per image' if plan.kept else 'in every epoch'}{where}"


def _about_keeping(plan: Plan, job: Job, requested: str) -> str:
    size = plan.estimate.get("bytes_a_picture", 0.0)
    what = "pixels" if plan.cut == 0 else f"{plan.prefix_precision} features"
    each = f"{written_size(size)} per image and view"
    if not plan.kept and requested == "nothing":
        return "kept: nothing, as requested"
    if not plan.kept:
        return f"kept: nothing ({what} at {each} do not fit into {written_size(job.room())}; see --cache-limit)"
    there = plan.estimate.get("cached", 0.0)
    cached = f"; about {percent(there, 0)} of it is there already" if there else ""
    return f"kept: {what}, {each}, {written_size(plan.estimate.get('bytes_kept', 0.0))} in all, in {job.folder}{cached}"


def _about_engine(plan: Plan) -> str:
    error = plan.estimate.get("engine_error")
    told = "" if error is None else f", {percent(error, 2)} from float32"
    other = "" if plan.trained == plan.segments or plan.precision == plan.prefix_precision else plan.precision
    rest = f"; what is trained, in {other}" if other else ""
    return f"engine: {plan.engine} on {plan.device} in {plan.prefix_precision} with {plan.threads} threads{told}{rest}"


def _about_head(settings: TrainingSettings) -> list[str]:
    if not settings.solved:
        return []
    return [
        "head: solved, with the penalty that cross-validation chooses; --head trained takes steps, as --epochs says"
    ]


def _about_time(plan: Plan, settings: TrainingSettings) -> list[str]:
    known = {name: plan.estimate.get(f"{name}_seconds") for name in ("read", "prefix", "epoch", "total")}
    if None in known.values():
        return []
    seconds = {name: f"{value:.1f} s" for name, value in known.items()}
    training = "solving the head" if settings.solved else f"at most {settings.epochs} epochs of"
    return [
        f"expected: reading {seconds['read']}, frozen part {seconds['prefix']}, "
        f"{training} {seconds['epoch']}, {seconds['total']} in all"
    ]
