"""The training loop: `fit` yields an `Epoch` after each pass. It saves nothing, and prints only on request."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.core.spec import suggestion
from visionadapt.data.readable import readable
from visionadapt.data.splits import check_usable
from visionadapt.errors import UsageError
from visionadapt.frozen.planning import Job
from visionadapt.images import Preprocessing, augmentation
from visionadapt.model.classifier import Classifier
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system import distributed
from visionadapt.system.cache_folder import default_folder
from visionadapt.training.epochs import Epoch
from visionadapt.training.steps import Training


def fit(
    model: Classifier,
    train: RowsLike,
    val: RowsLike,
    prepare: Preprocessing,
    *,
    settings: TrainingSettings | None = None,
    cache: str | Path | None = None,
    progress: bool | Callable[[str, int, int], None] = False,
    **changes: Any,
) -> Iterator[Epoch]:
    """Train the adapter layers and the head; yield an `Epoch` after each pass.

    Without adapter layers, the head is solved exactly, in one epoch, unless `head="trained"`. The frozen part runs once
    per image and view before the first epoch. After the last epoch or an early stop, the model holds the weights of the
    best epoch; after a `break`, those of the latest. If images have several labels, or with `task="multilabel"`, the
    model becomes a multi-label one.

    Within `distributed.joined()` several processes train one model: each takes its part of every batch, and all end
    with the same weights. `batch_size` is the total over all processes.

    Args:
        model: trained in place.
        train, val: the splits, from `split`, or other rows with the model's classes in any form that `split` takes.
        prepare: decoding, resizing and normalisation.
        settings: how to train; `changes` replaces single fields, such as `epochs=5` or `class_weights={"cat": 2}`.
        cache: folder that caches the output of the frozen part; by default the user's cache folder, or a temporary one
            for a custom augmentation pipeline.
        progress: called with what goes on, how much of it is done, and how much there is, before the first epoch and
            within each; True writes that to standard error.

    Raises:
        UsageError: a setting is unknown or invalid, the rows have other classes than the model, or the usable ones
            cannot be trained on.
        DivergenceError: the loss is no longer finite.
    """
    settings = _changed(settings or TrainingSettings(), changes).for_model(adapted=model.adapter is not None)
    parts = readable(_of_its_classes(model, train), _of_its_classes(model, val), prepare.decoded)
    rows = dict(zip(("train", "val"), parts, strict=True))
    augment = augmentation(settings.augment)
    with ExitStack() as stack:
        temporary = augment.is_own and cache is None
        own = distributed.from_first(lambda: stack.enter_context(TemporaryDirectory())) if temporary else None
        folder, lasting = Path(cache or own or default_folder()), Path(cache or default_folder())
        job = Job(len(rows["train"]), len(rows["val"]), folder, measurements=lasting)
        training = Training(model, rows, prepare, augment, settings, job)
        pipeline = training.pipeline(training.plan())
        tell = printed if progress is True else progress or (lambda what, done, total: None)
        found = [training.features(pipeline, split, progress=partial(tell, f"images of {split}")) for split in rows]
        check_usable({split: (rows[split], part.findings) for split, part in zip(rows, found, strict=True)})
        yield from training.epochs(found[0], found[1], progress=partial(tell, "steps of the epoch"))


def printed(what: str, done: int, total: int) -> None:
    """Write to standard error how much is done, over what was written before, in a terminal as in a notebook."""
    sys.stderr.write(f"\r{what}: {done:,} of {total:,}{chr(10) if done == total else ''}")
    sys.stderr.flush()


def _changed(settings: TrainingSettings, changes: Mapping[str, Any]) -> TrainingSettings:
    known = [item.name for item in dataclasses.fields(settings)]
    for name in changes:
        if name not in known:
            raise UsageError(f"fit has no setting {name!r}{suggestion(name, known)} (known: {', '.join(known)})")
    if isinstance(changes.get("class_weights"), Mapping):
        changes = {**changes, "class_weights": json.dumps(changes["class_weights"])}
    return dataclasses.replace(settings, **changes)


def _of_its_classes(model: Classifier, rows: RowsLike) -> Manifest:
    """Return the rows as a manifest; raise UsageError if they have other classes than the model."""
    manifest = manifest_of(rows)
    if manifest.classes != model.classes:
        raise UsageError(
            f"the model's classes are {_listed(model.classes)}, those of {manifest} {_listed(manifest.classes)}"
        )
    return manifest


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (f", … ({len(classes)})" if len(classes) > 5 else "")
