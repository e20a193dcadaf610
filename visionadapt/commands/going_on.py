"""Go on with a run by more epochs than it began with: `--resume RUN --epochs 40`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.runs.folder import read_json, read_metrics
from visionadapt.system.storage import write_json

GOING_ON = ("epochs", "patience")
"""Settings that may get larger when a run is resumed."""

_BEFORE = "gone_on_from"
"""Key in `config.json` of what these settings were before, in order."""


def check_further(run: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise UsageError if the given epochs or patience do not let a run go on.

    `stored` and `given` are options by name, of the run and of the command line.
    """
    if (run / "summary.json").exists() and "ensemble" in read_json(run, "summary.json"):
        raise UsageError(f"{run} is an ensemble, which is not trained as a whole; train one of its members for longer")
    if stored["head"] == "solved":
        raise UsageError(f"the head of {run} is solved, which takes one epoch; train anew with --head trained for more")
    for name in GOING_ON:
        if given[name] != stored[name] and given[name] < stored[name] and _is_given(name, given[name]):
            raise UsageError(f"--{name} {given[name]} is less than the {stored[name]} of {run}; only more can be given")
    done = len(read_metrics(run))
    summary = read_json(run, "summary.json") if (run / "summary.json").exists() else {}
    if summary.get("hopeless"):
        raise UsageError(
            f"{run} was stopped after epoch {done}, too far below the solved head; train anew with another adapter or "
            "--learning-rate, or with --no-early-stopping"
        )
    ended = summary and summary.get("stopped_after") is None and done < stored["epochs"]
    best = summary.get("best_epoch")
    waited = ended and type(best) is int and 0 < stored["patience"] <= done - best
    if waited and given["patience"] <= stored["patience"]:
        raise UsageError(f"{run} was stopped after epoch {done} by --patience {stored['patience']}; give a larger one")


def _is_given(name: str, value: int) -> bool:
    return name == "epochs" or value != TrainingSettings.patience


def go_on(run: Path, settings: TrainingSettings, check: Callable[[Mapping[str, Any]], None]) -> None:
    """Store the epochs and the patience of a resumed run; if they are others than before, it is unfinished again.

    `check` raises RunError, before anything is written, if a run with the earlier ones cannot go on.
    """
    config = read_json(run, "config.json")
    now = {name: int(getattr(settings, name)) for name in GOING_ON}
    before = {name: config["settings"].get(name, now[name]) for name in GOING_ON}
    if now == before:
        return
    check(before)
    (run / "summary.json").unlink(missing_ok=True)
    earlier = [*config.get(_BEFORE, []), before]
    write_json(run / "config.json", {**config, "settings": {**config["settings"], **now}, _BEFORE: earlier})


def before_going_on(run: Path, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of a run as they were each time before it got more epochs, given those that it has now."""
    if (run / "config.json").exists():
        for before in read_json(run, "config.json").get(_BEFORE, []):
            yield {**fixed, **{name: before[name] for name in GOING_ON if name in before}}
