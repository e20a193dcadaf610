"""Settle what a run's options leave open: its source, its folder, and what a run that goes on began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from visionadapt import trackers
from visionadapt.core import spec
from visionadapt.core.records import LocalSource, Source
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, UsageError
from visionadapt.evaluation.validation import check_precision
from visionadapt.run_folder import ledger, saving
from visionadapt.run_folder.options import RunOptions
from visionadapt.sources import FolderSource
from visionadapt.sources.opening import open_source

_FREE_ON_RESUME = {"resume", "workers", "cache", "cache_limit", "max_rejected", "tracker", "plan"}


def settled(options: RunOptions, settings: TrainingSettings) -> tuple[Path, RunOptions, TrainingSettings, bool]:
    """The run folder, every setting, and whether there is nothing left to do."""
    if options.resume is not None:
        run, options, settings = _resumed(options, settings)
        return run, options, settings, (run / "summary.json").exists()
    options = _resolved(options)
    return Path(str(options.out)), options, settings, False


def _resolved(options: RunOptions) -> RunOptions:
    """Settle what is left open, so that the run can go on from any folder."""
    if not options.data:
        raise UsageError("--data is missing: name the folder with your pictures, such as --data sample_images")
    ledger.most_rejected(options.max_rejected, rows=0)
    check_precision(options.wanted_precision)
    trackers.named(options.tracker)
    source = open_source(options.data)
    source = source.resolved() if isinstance(source, LocalSource) else source
    weights = options.weights
    if weights not in {"pretrained", "none"}:
        weights = str(Path(weights).absolute())
    out = options.out or _free_folder(source)
    saving.check_free(Path(out), options.overwrite)
    cache = str(Path(options.cache).absolute()) if options.cache else None
    if isinstance(source, FolderSource):
        _check_outside(Path(source.root), {"out": out, "cache": cache})
    data = spec.format(source, "source") if dataclasses.is_dataclass(source) else options.data
    return dataclasses.replace(options, data=data, weights=weights, out=out, cache=cache)


def _check_outside(root: Path, written: Mapping[str, str | None]) -> None:
    """Raise UsageError where something would be written among the user's pictures."""
    for name, folder in written.items():
        if folder and Path(folder).resolve().is_relative_to(root.resolve()):
            raise UsageError(f"--{name} {folder} lies in {root}, among the pictures; give --{name} a folder elsewhere")


def _free_folder(source: Source) -> str:
    name = source.name if isinstance(source, LocalSource) else "run"
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return str(folder)


def _resumed(options: RunOptions, settings: TrainingSettings) -> tuple[Path, RunOptions, TrainingSettings]:
    """The run to go on with, under its own settings; other ones given now are an error."""
    run = Path(str(options.resume))
    config = saving.read_json(run, "config.json")
    try:
        own, trained = RunOptions(**config["options"]), TrainingSettings(**config["settings"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run} was not made by the train command of this version; train anew") from error
    for given, stored in ((options, own), (settings, trained)):
        for item in dataclasses.fields(given):
            value = getattr(given, item.name)
            if item.name not in _FREE_ON_RESUME and value not in (item.default, getattr(stored, item.name)):
                name = item.name.replace("_", "-")
                raise UsageError(f"--{name} cannot be changed by --resume: {run} has {getattr(stored, item.name)!r}")
    tracker = options.tracker or own.tracker
    foreign = {"data": own.data, "adapter": own.adapter, "augment": trained.augment, "tracker": tracker}
    _check_imports(run, foreign, options, settings)
    ledger.most_rejected(options.max_rejected, rows=0)
    limit = options.max_rejected if options.max_rejected != RunOptions.max_rejected else own.max_rejected
    own = dataclasses.replace(own, cache=options.cache or own.cache, resume=options.resume, max_rejected=limit)
    room = options.cache_limit or own.cache_limit
    own = dataclasses.replace(own, cache_limit=room, tracker=tracker, plan=options.plan)
    trackers.named(tracker)
    workers = settings.workers if settings.workers >= 0 else trained.workers
    return run, own, dataclasses.replace(trained, workers=workers)


def _check_imports(
    run: Path, stored: Mapping[str, str | None], options: RunOptions, settings: TrainingSettings
) -> None:
    """Code that a run folder names is imported only where the user names it again."""
    for name, text in stored.items():
        given = getattr(options, name, None) or getattr(settings, name, None)
        if ":" in str(text).partition("(")[0] and given != text:
            raise UsageError(f"{run} uses code of its own; name it again to import it: --{name} {str(text)!r}")
