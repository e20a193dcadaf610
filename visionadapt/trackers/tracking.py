"""The trackers of one run: resolved by name, each epoch logged once, failing trackers dropped."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionadapt.core import spec
from visionadapt.errors import UsageError, without_secrets
from visionadapt.system.storage import write_json
from visionadapt.trackers.libraries import MLflow, TensorBoard, Trackio, WandB
from visionadapt.trackers.tracker import Plain, TrackedRun, Tracker

TRACKERS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": MLflow,
    "wandb": WandB,
}
"""Class of each name; the required library and the extra that installs it have the same name."""

FILE = "trackers.json"


def named(text: str | None) -> dict[str, Tracker]:
    """Return the trackers in a string such as `tensorboard,mlflow`, by name; a custom one is `module:Class`.

    Raises:
        UsageError: a name is unknown, or its library is not installed.
    """
    names = [name for part in (text or "").split(",") if (name := part.strip())]
    return {name: _made(name) for name in names}


def _made(name: str) -> Tracker:
    if ":" in name:
        return _own(name)
    if name not in TRACKERS:
        raise UsageError(
            f"--tracker {name}: unknown{spec.suggestion(name, TRACKERS)} "
            f"(known: {', '.join(TRACKERS)}; a custom one as module:Class)"
        )
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"--tracker {name} needs a library: pip install 'visionadapt[{name}]'")
    return TRACKERS[name]()


def _own(name: str) -> Tracker:
    try:
        tracker: Tracker = spec.called(spec.imported(name))
    except TypeError as error:
        raise UsageError(f"--tracker {name} cannot be made without arguments ({error})") from error
    missing = [method for method in ("start", "epoch", "finish") if not callable(getattr(tracker, method, None))]
    if missing:
        raise UsageError(f"--tracker {name} is not a tracker: it has no {' and no '.join(missing)}")
    return tracker


@dataclass
class Tracking:
    """Log a run to several trackers; an error in one is reported and drops only that tracker.

    The run folder's `trackers.json` stores the progress of each, so that a resumed run logs missing epochs once.

    Attributes:
        trackers: trackers by name.
        folder: the run folder.
        say: prints a line for the user.
    """

    trackers: dict[str, Tracker]
    folder: Path
    say: Callable[[str], None]
    runs: dict[str, TrackedRun] = dataclasses.field(default_factory=dict)

    def keep_those_behind(self, epochs: int) -> None:
        """Drop the trackers that already have `epochs` epochs."""

        def check(name: str, tracker: Tracker) -> None:
            if self._stored().get(name, {"epochs": 0})["epochs"] >= epochs:
                del self.trackers[name]

        self._each(check)

    def start(self, settings: Mapping[str, Any], past: Sequence[Mapping[str, Any]]) -> None:
        """Start or resume; metrics of `past` epochs are logged to trackers that lack them."""
        plain = dict(_flat(settings))

        def begin(name: str, tracker: Tracker) -> None:
            known = TrackedRun(self.folder, **self._stored().get(name, {}))
            begun: object = tracker.start(known, plain)
            if not isinstance(begun, TrackedRun):
                raise TypeError(f"start returned {type(begun).__name__} in place of a TrackedRun")
            self.runs[name] = begun
            self.say(f"tracked by {name}: {without_secrets(self.runs[name].identity or str(self.folder))}")

        self._each(begin)
        self._store()
        for metrics in past:
            self.epoch(metrics)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Log an epoch's metrics to every tracker that lacks them."""
        number = metrics["epoch"]
        figures = {name: value for name, value in metrics.items() if isinstance(value, int | float)}

        def log(name: str, tracker: Tracker) -> None:
            if self.runs[name].epochs < number:
                tracker.epoch(figures)
                self.runs[name] = dataclasses.replace(self.runs[name], epochs=number)
                self._store()

        self._each(log)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Finish all trackers with the results, or None if the run was interrupted; further calls do nothing."""
        plain = None if summary is None else dict(_flat(summary))

        def end(name: str, tracker: Tracker) -> None:
            if name in self.runs:
                tracker.finish(plain)

        self._each(end)
        self.trackers.clear()

    def _each(self, do: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                with redirect_stdout(io.StringIO()):  # stdout is for the command's own result
                    do(name, tracker)
            except Exception as error:  # noqa: BLE001 - third-party code may raise anything
                del self.trackers[name]
                reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
                self.say(f"{name} failed ({reason[:500]}); the run continues without it, and --resume logs the rest")

    def _store(self) -> None:
        if self.runs:
            progress = {name: {"identity": run.identity, "epochs": run.epochs} for name, run in self.runs.items()}
            write_json(self.folder / FILE, {**self._stored(), **progress})

    def _stored(self) -> dict[str, Any]:
        path = self.folder / FILE
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return stored


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Plain]]:
    """Yield finite numbers and strings by name, without secrets in URLs; other values are skipped."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}/")
        elif isinstance(value, str):
            yield f"{above}{name}", without_secrets(value)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{above}{name}", value
