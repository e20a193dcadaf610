"""What the run folders below a folder say of themselves: their figures, how far they came, where their settings differ.

Reads JSON alone and loads no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError
from visionadapt.run_folder.options import RunOptions

State = Literal["finished", "unfinished", "damaged"]

ACTIONS = frozenset({"out", "resume", "overwrite", "plan"})
"""Options that say what to do, not how the run computes."""

_UNTOLD = ACTIONS | {"cache", "cache_limit", "workers", "tracker"}
_FIGURES = ("val_accuracy", "val_mean_average_precision")
_SIGNS = ("plan.json", "classes.json", "metrics.jsonl", "model.safetensors", "checkpoint.safetensors")


@dataclass(frozen=True)
class RunOverview:
    """One run folder.

    Attributes:
        folder: where it is.
        state: `unfinished` runs go on with `--resume`.
        problem: what is damaged; None where nothing is.
        backbone, adapter: as in the settings.
        figure: the name of the validation figure that chose the best epoch, such as `val_accuracy`.
        value: the figure; of an unfinished run the best one so far.
        interval: its 95 % interval, where one is known.
        epochs: how many are over.
        planned: how many there were to be.
        seconds: all that the run took; of an unfinished run its epochs alone.
        began: when, in local time.
        settings: every option and setting that decides what is computed.
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

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        began = self.began.isoformat(timespec="seconds") if self.began else None
        return {**dataclasses.asdict(self), "folder": str(self.folder), "began": began}


def overviews(folder: Path) -> list[RunOverview]:
    """The runs at and below a folder, those with the highest figure first.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"no such folder: {folder}; name one with run folders in it, such as runs")
    found = [overview(run) for run in run_folders(folder)]
    return sorted(found, key=lambda run: (1.0 if run.value is None else -run.value, run.folder))


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders that are runs, or were ones before something was lost; hidden folders and links are passed over."""
    for place, names, files in os.walk(folder):
        if _looks_like_a_run(Path(place), files):
            names.clear()
            yield Path(place)
        names[:] = sorted(name for name in names if not name.startswith("."))


def _looks_like_a_run(folder: Path, files: Sequence[str]) -> bool:
    signs = sum(sign in files for sign in _SIGNS)
    if "config.json" not in files:
        return signs > 1
    try:
        config = _json(folder / "config.json")
    except (OSError, ValueError, RecursionError):
        return signs > 0
    return isinstance(config, dict) and "format" in config


def overview(run: Path) -> RunOverview:
    """What one run folder says; what cannot be read is its `problem`."""
    try:
        return _read(run)
    except (
        OSError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        name = Path(error.filename).name if isinstance(error, OSError) and error.filename else ""
        return RunOverview(run, problem=f"{name} {reason}".strip() if reason else f"cannot be read ({error})")


def _read(run: Path) -> RunOverview:
    config = _json(run / "config.json")
    settings = _settings(config)
    metrics = [json.loads(line) for line in _lines(run / "metrics.jsonl")]
    done = (run / "summary.json").exists() or "options" not in config
    summary: dict[str, Any] = _json(run / "summary.json") if (run / "summary.json").exists() else {}
    _check_whole(run / ("model.safetensors" if done else "checkpoint.safetensors"), required=done)
    figure = _figure(summary or (metrics[0] if metrics else {}))
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
        settings={name: value for name, value in settings.items() if name not in _UNTOLD},
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every option and setting of a run; what its version did not have yet is as it is by default."""
    if "options" not in config:
        return {name: config[name] for name in ("backbone", "adapter") if name in config}
    defaults = {item.name: item.default for kind in (RunOptions, TrainingSettings) for item in dataclasses.fields(kind)}
    return {**defaults, **config["options"], **config["settings"]}


def _figure(values: Mapping[str, Any]) -> str | None:
    return next((name for name in _FIGURES if name in values), None)


def _interval(run: Path, figure: str | None) -> tuple[float, float] | None:
    path = run / "validation" / "evaluation.json"
    if figure is None or not path.exists():
        return None
    limits = _json(path)["intervals"].get(figure.removeprefix("val_"))
    return None if limits is None else (float(limits[0]), float(limits[1]))


def _check_whole(path: Path, required: bool) -> None:
    """Raise ValueError where a safetensors file ends too early, or is missing though it is required."""
    if not path.exists():
        if required:
            raise ValueError(f"{path.name} is missing")
        return
    _check_regular(path)
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, path.stat().st_size)))
    ends = (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    if path.stat().st_size != 8 + length + max(ends, default=0):
        raise ValueError(f"{path.name} is not whole")


def _check_regular(path: Path) -> None:
    """Raise ValueError where opening a file could wait for ever; what is missing is found out by opening it."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no regular file")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _json(path: Path) -> Any:
    _check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _lines(path: Path) -> list[str]:
    _check_regular(path)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def differences(runs: Sequence[RunOverview]) -> dict[str, dict[str, list[int]]]:
    """Settings in which runs differ: for each its values, and for each value the places of the runs that have it."""
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


def repeating(run: Path) -> dict[str, Any]:
    """The options and settings that repeat a run, by name; what was left open is not among them.

    Raises:
        RunError: it is no run folder, is damaged, or was saved from Python.
    """
    try:
        config = _json(run / "config.json")
        given = {**config["options"], **config["settings"]}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{run} is no run folder, or a damaged one ({error})") from error
    except KeyError as error:
        raise RunError(f"{run} was saved from Python, and does not tell how it was trained") from error
    return {name: value for name, value in given.items() if name not in ACTIONS and value is not None}
