"""Resolve a run's options: its source, its folder, and the stored settings of a resumed run."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from visionadapt import trackers
from visionadapt.commands.going_on import GOING_ON, check_further
from visionadapt.core import spec
from visionadapt.core.records import LocalSource, Source
from visionadapt.core.settings import Default, TrainingSettings
from visionadapt.data.splits import fold_of
from visionadapt.errors import RunError, UsageError
from visionadapt.evaluation.validation import check_precision
from visionadapt.runs import ledger, trust
from visionadapt.runs.folder import check_free, read_json
from visionadapt.runs.hub import local_run
from visionadapt.runs.options import (
    DEFAULTS,
    FREE_ON_RESUME,
    RunOptions,
    by_name,
    divide,
    read_options,
)
from visionadapt.runs.starting import Start
from visionadapt.sources import FolderSource
from visionadapt.sources.edited import edited
from visionadapt.sources.objects.urls import is_object_url
from visionadapt.sources.opening import open_source
from visionadapt.system import distributed
from visionadapt.system.storage import check_outside

COMPARISON = "comparison.json"
"""The file of a folder that `compare` began, beside its `candidates`."""


def resolved(options: RunOptions, settings: TrainingSettings) -> tuple[Path, RunOptions, TrainingSettings, bool]:
    """Return the run folder, every setting, and whether there is nothing left to do."""
    check_minutes(options.max_minutes)
    if options.resume is not None:
        run, options, settings, goes_on = _resumed(options, settings)
        return run, options, settings, _finished(run) and not goes_on
    options = _with_defaults(options)
    return Path(str(options.out)), options, _with_weights(settings), False


def _with_weights(settings: TrainingSettings) -> TrainingSettings:
    """Read the file of --class-weights, if it names one, so that the run keeps what it holds."""
    if not settings.class_weights.endswith(".json"):
        return settings
    try:
        text = Path(settings.class_weights).read_text(encoding="utf-8")
        return dataclasses.replace(settings, class_weights=json.dumps(json.loads(text)))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--class-weights {settings.class_weights} cannot be read as JSON ({error})") from error


def _finished(run: Path) -> bool:
    """Whether a run has been trained to its end, or is what a search chose, and not only finished after a stop."""
    summary = read_json(run, "summary.json") if (run / "summary.json").exists() else {"stopped_after": 0}
    return summary.get("stopped_after") is None or "chosen_among" in summary


def check_minutes(minutes: float | None) -> None:
    """Raise UsageError where --max-minutes is no length of time."""
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--max-minutes {minutes} is no length of time; give minutes, such as 55")


def _with_defaults(options: RunOptions) -> RunOptions:
    """Resolve every open option, so that the run can be resumed from any folder."""
    if not options.data:
        raise UsageError("--data is missing: name the folder with your images, such as --data sample_images")
    ledger.most_rejected(options.max_rejected, rows=0)
    if options.refit and distributed.world_size() > 1:
        raise UsageError("--refit trains in one process; leave it out with torchrun")
    check_precision(options.target_precision)
    trackers.named(options.tracker)
    if options.from_run is not None:
        options = _from_run(options)
    source = open_source(str(options.data))
    source = source.resolved() if isinstance(source, LocalSource) else source
    weights = options.weights
    if weights not in {"pretrained", "none"} and not is_object_url(weights):
        weights = str(Path(weights).absolute())
    out = options.out or str(_free_folder(source, "runs"))
    check_free(Path(out), options.overwrite)
    cache = str(Path(options.cache).absolute()) if options.cache else None
    _check_outside(source, {"--out": out, "--cache": cache})
    if options.fold is not None:
        fold_of(options.fold)
    data = spec.format(source, "source") if dataclasses.is_dataclass(source) else options.data
    exclude = str(Path(options.exclude).absolute()) if options.exclude else None
    return dataclasses.replace(options, data=data, weights=weights, out=out, cache=cache, exclude=exclude)


def _from_run(options: RunOptions) -> RunOptions:
    """Return the options with the model of the run of --from; raise UsageError where it wants more than its weights."""
    start = Start.read(str(local_run(str(options.from_run))))
    new = start.options(options)
    if not options.trust_run:
        taken = {name: getattr(new, name) for name in ("backbone", "adapter")}
        _check_trusted(start.run, {name: value for name, value in taken.items() if value != getattr(options, name)})
    return new


def audit_folder(source: Source, out: str | None) -> Path:
    """Return the folder that an audit writes to: `out`, or the next free one below audits/.

    Raises:
        UsageError: it is among the images, or holds decisions of the user.
    """
    folder = Path(out) if out else _free_folder(source, "audits")
    _check_outside(source, {"--out": str(folder)})
    if edited(folder / "findings.csv"):
        raise UsageError(f"--out {folder} holds a findings.csv in which actions are filled in; give another folder")
    return folder


def scan_folder(source: Source, scanned: str) -> Path:
    """Return the folder of an audit's scans; raise UsageError if it is among the images."""
    _check_outside(source, {"--scanned": scanned})
    return Path(scanned)


def _check_outside(source: Source, folders: Mapping[str, str | None]) -> None:
    """Raise UsageError if the folder that an option names is among a source's images."""
    if isinstance(source, FolderSource):
        for option, folder in folders.items():
            if folder:
                check_outside(option, Path(folder), source.root)


def _free_folder(source: Source, below: str) -> Path:
    """Return the first folder NAME-1, NAME-2, … in the folder `below` that does not exist, named like the source."""
    name = source.name if isinstance(source, LocalSource) else "run"
    number = 1
    while (folder := Path(below) / f"{name}-{number}").exists():
        number += 1
    return folder


def _resumed(options: RunOptions, settings: TrainingSettings) -> tuple[Path, RunOptions, TrainingSettings, bool]:
    """Return the run to resume, its stored settings, updated with the given ones that may change, and whether it gets
    more epochs than it began with.
    """
    run = Path(str(options.resume))
    stored = _stored(run)
    given, merged = by_name(options, settings), dict(stored)
    for name, value in given.items():
        if value == stored[name] or (isinstance(value, Default) if name == "epochs" else value == DEFAULTS[name]):
            continue
        if name in GOING_ON:
            check_further(run, stored, given)
        elif name not in FREE_ON_RESUME:
            raise UsageError(f"--{name.replace('_', '-')} cannot be changed by --resume: {run} has {stored[name]!r}")
        merged[name] = value
    if not options.trust_run and given["cache"] is None and trust.wants("cache", stored["cache"], inside=run):
        merged["cache"] = None  # a folder that is not there is made only where the user names it
    if not options.trust_run:
        _check_trusted(run, {name: value for name, value in merged.items() if given[name] != value})
    ledger.most_rejected(merged["max_rejected"], rows=0)
    trackers.named(merged["tracker"])
    goes_on = any(merged[name] != stored[name] for name in GOING_ON)
    return run, *divide(merged), goes_on


def _check_trusted(run: Path, stored: Mapping[str, Any]) -> None:
    """Raise UsageError if stored options that the user has not repeated do more than read images and weights."""
    for name, reasons in trust.wanted_by(stored, inside=run).items():
        option = f"--{name.replace('_', '-')} {shlex.quote(str(stored[name]))}"
        raise UsageError(
            f"{run} would {' and '.join(reasons)}: give --trust-run to allow that, or repeat {option} for train"
        )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON has the type of an option."""
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return any(_fits(value, kind) for kind in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return isinstance(value, Default) or type(value) is hint if hint in (str, int, bool, type(None)) else True


def _stored(run: Path) -> dict[str, Any]:
    """Return every option and setting of a run by name; raise RunError if this version's train did not create it."""
    if (run / COMPARISON).is_file() and (run / "candidates").is_dir():
        raise RunError(f"{run} is a comparison: go on with visionadapt compare --resume {run}, or name one of its runs")
    config = read_json(run, "config.json")
    try:
        stored = read_options(config)
        if stored:
            values = by_name(*divide(stored))
            hints = {**get_type_hints(RunOptions), **get_type_hints(TrainingSettings)}
            wrong = [name for name, value in values.items() if not _fits(value, hints[name])]
            if wrong:
                raise TypeError(f"{wrong[0]} cannot be {type(values[wrong[0]]).__name__}")
            return values
    except (AttributeError, TypeError, UsageError) as error:
        raise RunError(f"{run} was not made by the train command of this version ({error}); train again") from error
    raise RunError(f"{run} was saved from Python and cannot be resumed; train again")
