"""Prepare a training run: its rows by split, the model, the preprocessing, and the amount of work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

from visionadapt.core import spec
from visionadapt.core.records import LocalSource, Manifest, Record, Source
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.readable import readable
from visionadapt.data.sample_range import with_measured_range
from visionadapt.data.splits import fold_of, folds, split
from visionadapt.errors import ImageError
from visionadapt.frozen.cache.eviction import read_size
from visionadapt.frozen.planning import Job
from visionadapt.images import Preprocessing, augmentation
from visionadapt.model.classifier import Classifier, classifier
from visionadapt.model.preprocessing import preprocessing_for
from visionadapt.runs.options import RunOptions
from visionadapt.runs.starting import Start
from visionadapt.sources.edited import Edits
from visionadapt.system import distributed
from visionadapt.system.cache_folder import default_folder
from visionadapt.training.steps import Training


def prepared(
    options: RunOptions,
    settings: TrainingSettings,
    folder: Path,
    source: Source,
    rows: Source | Manifest,
    say: Callable[[str], None],
) -> Training:
    """Return what a run trains: the rows by split, the model, its preprocessing, and the amount of work.

    Args:
        options, settings: of the run.
        folder: the run folder, for the cache of an augmentation of the user's own.
        source: where the rows come from.
        rows: the rows, edited by the user or not.
        say: tells what was measured or taken over.
    """
    train, val = _divided(rows, options, settings)
    start = Start.read(options.from_run) if options.from_run else None
    seed = settings.seed if start is None else start.seed
    adapter = None if options.adapter == "none" else spec.parse(options.adapter, "adapter", allow_import=True)
    model = classifier(
        options.backbone,
        train.classes,
        adapter,
        options.weights,
        options.image_size,
        seed,
        channels=options.channels,
    )
    model.use_features(options.features)
    if start is not None:
        say(start.put_into(model))
    given = start.prepare if start is not None else _preprocessing(options, model)
    train, val = readable(train, val, given.decoded)
    measure = partial(with_measured_range, given, train, workers=settings.workers, say=say)
    prepare = distributed.from_first(measure)
    augment = augmentation(spec.imported(settings.augment) if ":" in settings.augment else settings.augment)
    job = _job(options, settings, folder, source, (train, val))
    return Training(model, {"train": train, "val": val}, prepare, augment, settings, job)


def edited(source: Source, edits: Edits | None, say: Callable[[str], None]) -> Source | Manifest:
    """Return the rows of a source, as the user has edited them."""
    if edits is None:
        return source
    rows, told = edits.apply(source)
    say(told)
    return rows


def _divided(rows: Source | Manifest, options: RunOptions, settings: TrainingSettings) -> tuple[Manifest, Manifest]:
    """Return the rows to train on and to validate with."""
    seed = settings.seed if options.split_seed is None else options.split_seed
    if options.fold is None:
        return split(rows, options.val, seed, settings.task)
    number, k = fold_of(options.fold)
    return next(itertools.islice(folds(rows, k, seed, settings.task), number, None))


def _preprocessing(options: RunOptions, model: Classifier) -> Preprocessing:
    return preprocessing_for(
        model,
        options.resize,
        scaled=options.scaled,
        sample_range=options.sample_range,
        bands=options.bands,
        max_pixels=options.max_pixels,
        icc=options.icc,
    )


def _job(
    options: RunOptions, settings: TrainingSettings, folder: Path, source: Source, rows: tuple[Manifest, Manifest]
) -> Job:
    """Return the amount of work, with a few local images to estimate the reading time.

    A custom augmentation, which may change under the same name, has its cache in the run folder.
    """
    train, val = rows
    shared = Path(options.cache) if options.cache else default_folder()
    cache = folder / "cache" if ":" in settings.augment else shared
    limit = read_size(options.cache_limit) if options.cache_limit else None
    few = (train[index] for index in range(min(len(train), 4))) if isinstance(source, LocalSource) else ()
    sample = [data for record in few if (data := _read(source, record)) is not None]
    return Job(len(train), len(val), cache, limit, sample, shared)


def _read(source: Source, record: Record) -> bytes | None:
    """Return a row's bytes, or None if they cannot be read, which the pass over all rows reports."""
    try:
        return source.read(record) if record.problem is None else None
    except ImageError:
        return None
