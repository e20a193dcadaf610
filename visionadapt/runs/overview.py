"""Read the run folders below a folder: metrics, progress, and the settings in which they differ. Loads no torch."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from visionadapt.errors import RunError
from visionadapt.runs.folder import check_regular, read_json, read_metrics
from visionadapt.runs.options import ACTIONS, DEFAULTS, MACHINE_OPTIONS, read_options, repeating

State = Literal["finished", "unfinished", "damaged"]

_NOT_COMPARED = {*ACTIONS, *MACHINE_OPTIONS}
_FIGURES = ("val_accuracy", "val_mean_average_precision")
_SIGNS = ("plan.json", "classes.json", "metrics.jsonl", "model.safetensors", "checkpoint.safetensors")


@dataclass(frozen=True)
class RunOverview:
    """One run folder; `problem` says what is damaged, and `unfinished` runs can be resumed with `--resume`.

    `figure` names the validation metric that selected the best epoch, such as `val_accuracy`. `value` is that metric,
    for an unfinished run the best so far, and `interval` its 95 % interval, if known. `seconds` is the duration of the
    run, for an unfinished run of its epochs. `settings` has every option and setting that affects the result.
    """

    folder: Path
    state: State = "damaged"
    problem: str | None = None
    backbone: str | None = None
    adapter: str | None = None
    figure: str | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    epochs: int = 0
    planned: int | None = None
    seconds: float | None = None
    began: datetime | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        """The images that it was trained on; empty where the run does not say."""
        return str(self.settings.get("data") or "")

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON-serialisable data."""
        began = self.began.isoformat(timespec="seconds") if self.began else None
        return {**dataclasses.asdict(self), "folder": str(self.folder), "began": began}


def overviews(folder: Path) -> list[RunOverview]:
    """Return the runs at and below a folder, best validation metric first; raise RunError if it does not exist."""
    if not folder.is_dir():
        raise RunError(f"no such folder: {folder}; name a folder that contains run folders, such as runs")
    found = [overview(run) for run in run_folders(folder)]
    return sorted(found, key=lambda run: (1.0 if run.value is None else -run.value, run.folder))


def by_data(runs: Sequence[RunOverview]) -> dict[str, list[RunOverview]]:
    """Group runs by the images that they were trained on, finished ones first in each group, in their order."""
    groups: dict[str, list[RunOverview]] = {}
    for run in sorted(runs, key=lambda run: run.state != "finished"):
        groups.setdefault(run.data, []).append(run)
    return groups


def frontier(runs: Sequence[RunOverview]) -> list[RunOverview]:
    """Return the finished runs for which no other one was at least as good in less time, the fastest first.

    Folds of a cross-validation are left out: each is validated on other images.
    """
    finished = [run for run in runs if run.state == "finished" and not run.settings.get("fold")]
    timed = [run for run in finished if run.value is not None and run.seconds is not None]
    found: list[RunOverview] = []
    for run in sorted(timed, key=lambda run: (run.seconds or 0.0, -(run.value or 0.0))):
        if not found or (run.value or 0.0) > (found[-1].value or 0.0):
            found.append(run)
    return found


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield folders that are runs, damaged ones included; hidden folders and links are skipped.

    Below a run that is not `folder` itself, such as one that was chosen among candidates, there are no others.
    """
    for place, names, files in os.walk(folder):
        if _looks_like_a_run(Path(place), files):
            if Path(place) != folder:
                names.clear()
            yield Path(place)
        names[:] = sorted(name for name in names if not name.startswith("."))


def _looks_like_a_run(folder: Path, files: Sequence[str]) -> bool:
    signs = sum(sign in files for sign in _SIGNS)
    if "config.json" not in files:
        return signs > 1
    try:
        config = read_json(folder, "config.json")
    except RunError:
        return signs > 0
    return isinstance(config, dict) and "format" in config


def overview(run: Path) -> RunOverview:
    """Read one run folder; errors are reported in `problem`."""
    try:
        return _read(run)
    except RunError as error:
        return RunOverview(run, problem=str(error))
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return RunOverview(run, problem=f"cannot be read ({error})")


def _read(run: Path) -> RunOverview:
    config = read_json(run, "config.json")
    settings = _settings(config)
    metrics = read_metrics(run)
    done = (run / "summary.json").exists() or "options" not in config
    summary: dict[str, Any] = read_json(run, "summary.json") if (run / "summary.json").exists() else {}
    _check_complete(run / ("model.safetensors" if done else "checkpoint.safetensors"), required=done)
    known = summary or (metrics[0] if metrics else {})
    chosen = f"val_{settings.get('metric')}"
    figure = next((name for name in (chosen, *_FIGURES) if name in known), None)
    values = [summary] if summary else metrics
    reached = [float(line[figure]) for line in values if figure and line[figure] is not None]
    return RunOverview(
        folder=run,
        state="finished" if done else "unfinished",
        backbone=_text(settings.get("backbone")),
        adapter=_text(settings.get("adapter")),
        figure=figure,
        value=max((value for value in reached if math.isfinite(value)), default=None),
        interval=_interval(run, figure) if summary else None,
        epochs=len(metrics),
        planned=settings.get("epochs"),
        seconds=sum(summary["seconds"].values()) if summary else sum(line["seconds"] for line in metrics),
        began=datetime.fromtimestamp((run / "config.json").stat().st_mtime),
        settings={name: value for name, value in settings.items() if name not in _NOT_COMPARED},
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option and setting of a run; those that its version did not have yet get their defaults."""
    if "options" not in config:
        return {name: config[name] for name in ("backbone", "adapter") if name in config}
    return {**DEFAULTS, **read_options(config)}


def _interval(run: Path, figure: str | None) -> tuple[float, float] | None:
    name = "validation/evaluation.json"
    if figure is None or not (run / name).exists():
        return None
    limits = read_json(run, name)["intervals"].get(figure.removeprefix("val_"))
    return None if limits is None else (float(limits[0]), float(limits[1]))


def _check_complete(path: Path, required: bool) -> None:
    """Raise ValueError if a safetensors file is damaged, or is required and missing."""
    check_regular(path)
    try:
        with safe_open(path, "np"):
            pass
    except FileNotFoundError as error:
        if required:
            raise ValueError(f"{path.name} is missing") from error
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged or incomplete ({error})") from error


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def differences(runs: Sequence[RunOverview]) -> dict[str, dict[str, list[int]]]:
    """Return the settings in which runs differ: for each its values, and for each value the indices of its runs."""
    found: dict[str, dict[str, list[int]]] = {}
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values: dict[str, list[int]] = {}
        for place, run in enumerate(runs):
            if name in run.settings:
                value = run.settings[name]
                values.setdefault("by default" if value is None else str(value), []).append(place)
        if len(values) > 1:
            found[name] = values
    return found


def settings_of(run: Path) -> dict[str, Any]:
    """Return the options and settings that repeat a run, by name, without those that were not set.

    Raise RunError if the folder is not a run folder, is damaged, was saved from Python, or is an ensemble.
    """
    try:
        settings = repeating(read_options(read_json(run, "config.json")))
    except (RunError, TypeError, AttributeError) as error:
        raise RunError(f"{run} is not a run folder, or is damaged ({error}); name one that train made") from error
    if not settings:
        raise RunError(f"{run} was saved from Python and has no options to repeat; name a run that train made")
    if (run / "summary.json").exists() and "ensemble" in read_json(run, "summary.json"):
        raise RunError(f"{run} is an ensemble, which no single training repeats; name one of its members")
    return settings
