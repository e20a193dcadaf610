"""Cache the frozen features of one part of a run's images, for a later training: `train --shard 3/16`."""

from __future__ import annotations

from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.core.sharding import Shard
from visionadapt.errors import UsageError
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.runs.options import RunOptions
from visionadapt.system import distributed
from visionadapt.system.text import counted
from visionadapt.training.steps import Training


def check_part(options: RunOptions, settings: TrainingSettings) -> None:
    """Raise UsageError where --shard is no part of a whole, or is given together with what makes no cached features."""
    if options.shard is None:
        return
    Shard.parse(options.shard)
    others = {
        "--resume": options.resume is not None,
        "--folds": options.folds is not None,
        "--minutes": options.minutes is not None,
        "--plan": options.plan,
        "torchrun": distributed.world_size() > 1,
        "--keep nothing": settings.keep == "nothing",
        f"--augment {settings.augment}, which is cached in the run folder,": ":" in str(settings.augment),
    }
    for name in (name for name, given in others.items() if given):
        raise UsageError(
            f"{name} cannot go with --shard {options.shard}, which only caches the features of a part of the images; "
            "leave one of them out"
        )


def cache_part(training: Training, pipeline: Pipeline, text: str, reporter: Reporter) -> None:
    """Cache the features of the training and validation images that are in a part such as `3/16`, with all views.

    They are computed by the plan for all images, so that the training itself finds them.

    Raises:
        UsageError: the cache may not hold the features of all images.
    """
    if not pipeline.plan.kept:
        raise UsageError(f"--shard {text}: the features of all images do not fit into the cache; see --cache-limit")
    shard, cached, rejected, computed = Shard.parse(text), 0, 0, 0
    stopped = "stopped; the features so far are cached: repeat the command to go on"
    for name, what in (("train", "training images"), ("val", "validation images")):
        with reporter.if_stopped(stopped), reporter.progress(what) as progress:
            found = training.features(pipeline, name, progress=progress, shard=shard)
        cached, rejected = cached + len(found), rejected + len(found.findings) - len(found)
        computed += found.computed
    images = sum(map(len, training.rows.values()))
    more = f", {rejected:,} more of this part cannot be used" if rejected else ""
    reporter.say(
        f"features of {cached:,} of {counted(images, 'image')} are cached{more}; "
        "train without --shard when all parts are done"
    )
    facts = {"shard": str(shard), "images": images, "cached": cached, "rejected": rejected, "computed": computed}
    reporter.event("shard", {"cache": str(training.job.folder), **facts})
    reporter.answer(str(training.job.folder))
