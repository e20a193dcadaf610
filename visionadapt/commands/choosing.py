"""`train --minutes 8`: train several candidates, one after another, and take the one that validates best."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from visionadapt.commands.resolving import resolved
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, UsageError
from visionadapt.metrics.paired import difference
from visionadapt.metrics.selection import accuracy_after_choosing
from visionadapt.run_folder.folder import read_json, read_metrics
from visionadapt.run_folder.options import DEFAULT_ADAPTER, RunOptions
from visionadapt.system import distributed
from visionadapt.system.storage import write_json

FILE = "candidates.json"
FOLDER = "candidates"
"""Folder of the candidates' own run folders, in the one that the best becomes."""

_RESERVED = 0.03
"""Share of the time that is kept for making the best candidate the result."""
_ENOUGH = 0.9
"""Share of the time of the longest candidate with adapters so far that another one needs to be begun."""

Train = Callable[[RunOptions, TrainingSettings, Reporter], Path]
Finish = Callable[[Path, Reporter], Path]


@dataclass(frozen=True)
class Candidate:
    """What is tried: a name, and the adapter layers and settings that it is trained with."""

    name: str
    adapter: str
    settings: Mapping[str, Any] = field(default_factory=dict)


CANDIDATES = (
    Candidate("solved head", "none"),
    Candidate("default adapter", DEFAULT_ADAPTER),
    Candidate("default adapter, smaller steps", DEFAULT_ADAPTER, {"learning_rate": 0.003}),
    Candidate("low-rank layers", "lora(blocks=last:33%)"),
    Candidate("bottlenecks in more blocks", "bottleneck(rank=16, blocks=last:66%)"),
    Candidate("last blocks unfrozen", "partial(blocks=last:3)"),
    Candidate("default adapter in more blocks", "repadapter(blocks=last:66%)"),
)
"""In the order in which they are tried: the cheapest first, then those that most often were the best."""


@dataclass(frozen=True)
class Result:
    """A trained candidate.

    Attributes:
        candidate: what was trained.
        run: its run folder.
        score: the validation figure that chooses.
        right: which validation images it classifies correctly, bool [N]; [0] for a task without an accuracy.
        seconds: of the whole training.
    """

    candidate: Candidate
    run: Path
    score: float
    right: NDArray[np.bool_]
    seconds: float


def train_candidates(
    options: RunOptions, settings: TrainingSettings, reporter: Reporter, train: Train, finish: Finish
) -> Path:
    """Train candidates by `train` until the time of `options.minutes` is over; return the run folder of the best one.

    They share the feature cache and the split. The folder also holds the candidates' own run folders and a table of
    them, `candidates.json`. With `options.resume`, candidates that were finished are kept.

    Raises:
        UsageError: an option is given that the candidates differ in, or several processes train.
    """
    if distributed.world_size() > 1:
        raise UsageError("--minutes chooses in one process; with torchrun, train one adapter: --adapter …")
    out, minutes, options, settings = _begun(options, settings)
    (out / FOLDER).mkdir(exist_ok=True)
    results: list[Result] = []
    for number, candidate in enumerate(CANDIDATES, 1):
        folder = out / FOLDER / f"{number}"
        left = 60 * minutes * (1 - _RESERVED) - sum(result.seconds for result in results)
        longest = max((result.seconds for result in results if result.candidate.adapter != "none"), default=0.0)
        if not (folder / "summary.json").exists() and left < max(_ENOUGH * longest, 1.0):
            break
        reporter.say(f"candidate {number} of {len(CANDIDATES)}, {candidate.name}: {candidate.adapter}")
        found = _trained(candidate, folder, left, (options, settings), reporter, train, finish)
        if found is not None:
            results.append(found)
            reporter.say(_standing(results))
    if not results:
        raise RunError(f"{minutes:g} minutes are too few to train one candidate; give more --minutes")
    return _taken(out, results, reporter)


def is_choosing(folder: Path) -> bool:
    """Whether a folder holds candidates of which none is taken yet."""
    return (folder / FILE).is_file() and "chosen" not in read_json(folder, FILE)


def best_of(results: Sequence[Result]) -> Result:
    """Return the result with the highest score, the first one among equals."""
    return max(results, key=lambda result: result.score)


def _begun(options: RunOptions, settings: TrainingSettings) -> tuple[Path, float, RunOptions, TrainingSettings]:
    """Return the folder, the minutes, and what every candidate has in common."""
    if options.resume is not None:
        out = Path(options.resume)
        if options.minutes is not None:
            raise UsageError(f"--minutes cannot be changed by --resume: {out} goes on with its own")
        facts, first = read_json(out, FILE), out / FOLDER / "1"
        minutes, epochs = facts.get("minutes"), facts.get("epochs")
        if type(minutes) not in (int, float) or type(epochs) is not int or not first.is_dir():
            raise RunError(f"{out / FILE} has no minutes or epochs, or no candidate was begun; train again")
        _, options, settings, _ = resolved(dataclasses.replace(options, resume=str(first)), settings)
        return out, float(minutes), options, dataclasses.replace(settings, head="auto", epochs=epochs)
    minutes = options.minutes or 0.0
    if not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes {minutes:g} is no length of time; give minutes, such as 8")
    given = {
        "--adapter": options.adapter != DEFAULT_ADAPTER,
        "--head": settings.head != "auto",
        "--plan": options.plan,
        "--folds": options.folds is not None,
        "--from": options.from_run is not None,
        "--max-minutes": options.max_minutes is not None,
        "--overwrite": options.overwrite,
    }
    for option in (name for name, there in given.items() if there):
        raise UsageError(f"{option} cannot go with --minutes, which tries several adapters; leave one of them out")
    out, options, settings, _ = resolved(options, settings)
    out.mkdir(parents=True)
    write_json(out / FILE, {"minutes": minutes, "epochs": settings.epochs})
    return out, minutes, options, settings


def _trained(
    candidate: Candidate,
    folder: Path,
    left: float,
    given: tuple[RunOptions, TrainingSettings],
    reporter: Reporter,
    train: Train,
    finish: Finish,
) -> Result | None:
    """Train a candidate within the seconds left, or go on with it; return None if no epoch was done in time."""
    options, settings = given
    own = dataclasses.replace(options, minutes=None, max_minutes=max(left, 0.0) / 60 or 1e-9)
    if folder.exists():
        own = dataclasses.replace(own, out=None, resume=str(folder))
        changed = settings
    else:
        own = dataclasses.replace(own, out=str(folder), resume=None, adapter=candidate.adapter)
        changed = dataclasses.replace(settings, **candidate.settings)
    started = time.monotonic()
    with reporter.without_answers():
        if not (folder / "summary.json").exists():
            train(own, changed, reporter)
        if not (folder / "summary.json").exists():  # its time is over
            if not read_metrics(folder):
                return None
            finish(folder, reporter)
    summary = read_json(folder, "summary.json")
    seconds = max(time.monotonic() - started, sum(summary["seconds"].values()))
    return Result(candidate, folder, _score(summary, settings), _right(folder), seconds)


def _score(summary: Mapping[str, Any], settings: TrainingSettings) -> float:
    """Return the figure that chooses the best epoch, and so the best candidate."""
    several = "val_accuracy" not in summary
    usual = "mean_average_precision" if several else "accuracy"
    score = summary[f"val_{usual if settings.metric == 'auto' else settings.metric}"]
    return float("-inf") if score is None else float(score)


def _right(run: Path) -> NDArray[np.bool_]:
    """Return which of the validation images a run classifies correctly, in their order; empty for several classes."""
    table = parquet.read_table(run / "validation" / "predictions.parquet")
    if "true_class" not in table.column_names or "label" not in table.column_names:
        return np.empty(0, np.bool_)
    rows = zip(table["true_class"].to_pylist(), table["label"].to_pylist(), strict=True)
    return np.array([own == label for own, label in rows if label is not None], np.bool_)


def _standing(results: Sequence[Result]) -> str:
    """Say which candidate leads, and by how much."""
    best, first = best_of(results), results[0]
    if best is first or not len(best.right):
        return f"{best.candidate.name} leads with {best.score:.4f}"
    return f"{best.candidate.name} leads with {best.score:.4f}: {_than(best, first)}"


def _against(result: Result, other: Result) -> tuple[float, float, float]:
    """Return how much higher a result's accuracy is than another's, and the limits of the difference."""
    gained, lost = int((result.right & ~other.right).sum()), int((other.right & ~result.right).sum())
    return difference(gained, lost, len(result.right))


def _than(result: Result, other: Result) -> str:
    by, low, high = _against(result, other)
    return f"{100 * by:+.1f} points against the {other.candidate.name} (95 %: {100 * low:+.1f} to {100 * high:+.1f})"


def _taken(out: Path, results: Sequence[Result], reporter: Reporter) -> Path:
    """Make the best candidate's run the folder's own; write and print the table of all."""
    best = best_of(results)
    facts: dict[str, Any] = {**read_json(out, FILE), "candidates": [_told(result, results[0]) for result in results]}
    shutil.copytree(best.run, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
    facts["chosen"] = best.candidate.name
    rows = {result.candidate.name: _row(result, results[0]) for result in results}
    if len(best.right):
        corrected = accuracy_after_choosing(np.stack([result.right for result in results]))
        facts["accuracy_after_choosing"] = corrected
        rows["chosen"] = f"{best.candidate.name}: {best.score:.4f}; corrected for having been chosen, {corrected:.4f}"
    write_json(out / FILE, facts)
    reporter.table("candidates", {**rows, "report": str(out / "report.html"), "run folder": str(out)})
    reporter.event("candidates", {"run": str(out), **facts})
    reporter.answer(str(out))
    return out


def _told(result: Result, first: Result) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": result.candidate.name,
        "adapter": result.candidate.adapter,
        **result.candidate.settings,
        "score": result.score,
        "seconds": round(result.seconds, 1),
        "run": f"{FOLDER}/{result.run.name}",
    }
    if len(result.right) and result is not first:
        facts["against_solved_head"] = dict(zip(("difference", "low", "high"), _against(result, first), strict=True))
    return facts


def _row(result: Result, first: Result) -> str:
    compared = "" if result is first or not len(result.right) else f", {_than(result, first)}"
    return f"{result.score:.4f} in {result.seconds:.0f} s{compared}"
