"""`Search`: try candidates one after another within a time, or begin again where an interrupted search stopped."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from visionadapt.commands.candidates import CANDIDATES, FOLDER, Candidate, Result, best_of, right_of, score_of
from visionadapt.commands.clock import spent
from visionadapt.commands.resolving import resolved
from visionadapt.commands.run import Fitting, TimeOverError
from visionadapt.console.reporter import Reporter
from visionadapt.console.summaries import rounded
from visionadapt.core.settings import STEPWISE, Default, TrainingSettings, rate_share
from visionadapt.errors import DivergenceError, MemoryShortageError, RunError, UsageError
from visionadapt.metrics.ensembles import MOST_MEMBERS
from visionadapt.runs.folder import read_json, read_metrics
from visionadapt.runs.options import DEFAULT_ADAPTER, DEFAULTS, RunOptions
from visionadapt.runs.saved import read_plan
from visionadapt.system import distributed
from visionadapt.system.locks import FolderLocks
from visionadapt.system.process import reset_peak_memory
from visionadapt.system.storage import remove_unfinished, write_json
from visionadapt.system.text import percent

KEPT = "stopped; every candidate is kept, up to its last whole epoch"
REFIT = "refit"
"""Key of a search's file that says whether the best candidate is trained once more, on all images."""
_FAILED = "failed.json"
"""A file in the folder of a candidate that could not be trained, with the reason and the seconds that it took."""
_RESERVED = 0.03
"""Share of the time that is kept for what follows the last candidate."""
_REFIT = 1.3
"""Time of a training on all images, with a fifth of them to validate with, for each second of the one before."""
_ENOUGH = 0.9
"""Share of the time of the longest candidate with adapters so far that another one needs to be begun."""
_ENOUGH_IF_FITTED = 0.25
"""The same where a candidate gets as many epochs as there is time for."""
_FIRST = 2 / 3
"""Share of the time that the first candidate with adapters takes: on many images, the mean of two is worth more."""
_LOWER = 0.6
"""Share of a learning rate that is given, where a candidate has a lower one than the others."""
Train = Callable[..., Path]
"""Takes `RunOptions`, `TrainingSettings`, a `Reporter` and the run that it is `like`, and in a search a `Fitting`."""


@dataclass(frozen=True)
class Search:
    """A folder of candidates, and how each is trained.

    Attributes:
        out: the folder.
        minutes: time for all of them; infinite where each is trained to its end.
        options, settings: what they have in common.
        reporter: tells which one is trained, and which one leads.
        train: trains a run, and ends it with its best epoch when its time is over.
        candidates: what is tried, in this order.
        refit: whether time is needed at the end for training the best ones once more.
        ends: the time on the monotonic clock when all but the last steps must be done.
        fitted: whether `train` takes a `Fitting` too, and trains fewer epochs where the time is too short for all.
    """

    out: Path
    minutes: float
    options: RunOptions
    settings: TrainingSettings
    reporter: Reporter
    train: Train
    candidates: Sequence[Candidate] = CANDIDATES
    refit: bool = False
    fitted: bool = False
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        """Set when the time is over, of which earlier processes took some."""
        taken = 0.0
        for number in range(1, len(self.candidates) + 1):
            folder = self.out / FOLDER / f"{number}"
            failed = read_json(folder, _FAILED).get("seconds") if (folder / _FAILED).exists() else None
            taken += float(failed) if isinstance(failed, int | float) else sum(spent(folder)[0].values())
        left = 60 * self.minutes * (1 - _RESERVED) - taken
        object.__setattr__(self, "ends", time.monotonic() + left)

    def results(self) -> list[Result]:
        """Train the candidates until the time is over; those that an earlier search has finished are kept.

        A candidate whose loss diverges, or for which the memory is too small, is left out, also by a later search.

        Raises:
            RunError: not one candidate could be trained.
            DivergenceError, MemoryShortageError: of the first candidate, which all others are compared with.
        """
        (self.out / FOLDER).mkdir(exist_ok=True)
        results: list[Result] = []
        for number, candidate in enumerate(self.candidates, 1):
            folder = self.out / FOLDER / f"{number}"
            if (folder / _FAILED).exists():
                continue
            left = self.ends - time.monotonic() - self._seconds_after(self._members_kept_for(results))
            adapted = [result.seconds for result in results if result.candidate.adapter != "none"]
            longest = max(adapted, default=0.0)
            enough = max((_ENOUGH_IF_FITTED if self.fitted else _ENOUGH) * longest, self._phase("prepare", min) + 1.0)
            if not folder.exists() and left < enough:
                self._say_skipped(number)
                break
            self.reporter.say(f"\ncandidate {number} of {len(self.candidates)}, {candidate.name}: {candidate.adapter}")
            started = time.monotonic()
            try:
                leaves_some = not adapted and any(len(result.right) for result in results)  # else none are averaged
                results.append(self._trained(candidate, folder, left, _FIRST if leaves_some else 1.0))
            except TimeOverError:
                if results:
                    self._say_skipped(number)
                break
            except (DivergenceError, MemoryShortageError) as error:
                if not results:
                    raise
                folder.mkdir(exist_ok=True)
                write_json(folder / _FAILED, {"reason": str(error), "seconds": time.monotonic() - started})
                self.reporter.say(f"{candidate.name} is left out: {error}")
            else:
                self.reporter.say(_standing(results))
        if not results:
            raise RunError(f"--minutes {self.minutes:g} is too short for one candidate{self._expected()}")
        return results

    def _say_skipped(self, number: int) -> None:
        skipped = "; ".join(one.name for one in self.candidates[number - 1 :])
        self.reporter.say(f"\nno time is left for: {skipped}")

    def _expected(self) -> str:
        """Say how long the first candidate takes, as far as that is known, and what to do."""
        first = self.out / FOLDER / "1"
        seconds = read_plan(first).estimate.get("total_seconds") if (first / "plan.json").exists() else None
        told = "" if seconds is None else f", which takes about {rounded(seconds)}"
        return f"{told}; give more, and another --out: images that were computed are cached"

    def members_in_time(self) -> int:
        """Return how many candidates there is time for to train once more, 1 at least."""
        if not self.refit or math.isinf(self.minutes):
            return MOST_MEMBERS
        left = self.ends - time.monotonic()
        return next((count for count in range(MOST_MEMBERS, 1, -1) if self._seconds_after(count) <= left), 1)

    def _members_kept_for(self, results: Sequence[Result]) -> int:
        """Return how many members of an ensemble time is kept for, before the candidate behind these is trained.

        With little time, a third candidate to choose from is worth more than a third member.
        """
        if any(not len(result.right) for result in results):
            return 1
        adapted = sum(result.candidate.adapter != "none" for result in results)
        return MOST_MEMBERS if adapted >= MOST_MEMBERS else min(adapted + 1, 2)

    def _seconds_after(self, members: int) -> float:
        """Return what follows the last candidate: an ensemble of some members, each once more, and the last report."""
        prepare, save, report = self._phase("prepare", min), self._phase("save"), self._phase("report")
        ensemble = prepare + save + report if members > 1 else 0.0
        again = _REFIT * self._phase("train") + save + prepare if self.refit else 0.0
        return ensemble + members * again + prepare + report

    def _phase(self, name: str, of: Callable[[Sequence[float]], float] = max) -> float:
        """Return the longest time that a phase of a candidate took, or another one `of` all; 0 before the first."""
        folders = (self.out / FOLDER / f"{number}" for number in range(1, len(self.candidates) + 1))
        return of([spent(run)[0].get(name, 0.0) for run in folders if (run / "summary.json").exists()] or [0.0])

    def _pace(self) -> float:
        """Return how many seconds an epoch of the latest candidate in steps took for each one that was expected."""
        for number, candidate in reversed(list(enumerate(self.candidates, 1))):
            run = self.out / FOLDER / f"{number}"
            if candidate.adapter != "none" and (run / "summary.json").exists() and (run / "plan.json").exists():
                expected = read_plan(run).estimate.get("epoch_seconds", 0)
                seconds = [own for line in read_metrics(run) if isinstance(own := line.get("seconds"), (int, float))]
                if expected > 0 and seconds:
                    return float(np.median(seconds)) / float(expected)
        return 1.0

    def _below_usual_rate(self, candidate: Candidate) -> Candidate:
        """Return a candidate with a lower rate than that of all others, which is given, or falls with many images."""
        own, given = candidate.settings.get("learning_rate"), self.settings.learning_rate
        if own is None:
            return candidate
        first = self.out / FOLDER / "1"
        images = read_json(first, "summary.json").get("train_images") if (first / "summary.json").exists() else None
        share = rate_share(images) if type(images) is int else 1.0
        rate = float(f"{share * own:.2g}") if given is None else _LOWER * given
        return dataclasses.replace(candidate, settings={**candidate.settings, "learning_rate": rate})

    def _trained(self, candidate: Candidate, folder: Path, left: float, share: float) -> Result:
        """Train a candidate within a share of the seconds left, all of them if that is too short, or go on with it.

        Raises:
            TimeOverError: no epoch fits.
        """
        limit = max(left - self._phase("save") - self._phase("report"), 1e-9) / 60
        own = dataclasses.replace(self.options, minutes=None, max_minutes=limit if np.isfinite(limit) else None)
        begun = folder.exists()
        own = dataclasses.replace(own, out=None if begun else str(folder), resume=str(folder) if begun else None)
        own = dataclasses.replace(own, adapter=candidate.adapter)
        if own.split_seed is None:
            own = dataclasses.replace(own, split_seed=self.settings.seed)
        candidate = self._below_usual_rate(candidate)
        changed = dataclasses.replace(self.settings, **candidate.settings, seed=self.settings.seed + candidate.draw)
        if begun:
            changed = dataclasses.replace(changed, epochs=_epochs_of(folder, changed.epochs))
        reset_peak_memory()
        with self.reporter.without_answers(tables=False, details=candidate is self.candidates[0]):
            if not (folder / "summary.json").exists():
                given = {"fitting": Fitting(self._pace(), share)} if self.fitted else {}
                self.train(own, changed, self.reporter, **given, like=self.out / FOLDER / "1")
        summary = read_json(folder, "summary.json")
        seconds, peak = spent(folder)
        if candidate.adapter != "none":  # as the number of images or the time decided
            epochs = _epochs_of(folder, self.settings.epochs)
            candidate = dataclasses.replace(candidate, settings={**candidate.settings, "epochs": epochs})
        score, taken = score_of(summary, self.settings), sum(seconds.values())
        return Result(candidate, folder, score, right_of(folder), taken, peak or None)


def begun(
    file: str, option: str, options: RunOptions, settings: TrainingSettings, locks: FolderLocks
) -> tuple[Path, float, RunOptions, TrainingSettings]:
    """Create the folder of a new search with a `file` that says what it was begun with, or open an interrupted one.

    The folder is locked.

    Returns:
        The first fields of `Search`: the folder, the minutes, and what every candidate has in common.

    Raises:
        UsageError: an option is given that the candidates differ in, or several processes train.
        RunError: the folder of `options.resume` holds no search, or another process is at it.
    """
    if distributed.world_size() > 1:
        raise UsageError(f"{option} tries candidates in one process; with torchrun, train one adapter: --adapter …")
    if options.resume is not None:
        found = _begun_before(file, option, options, settings)
        locks.take(found[0])
        remove_unfinished(found[0])
        return found
    if options.minutes is not None and not 0 < options.minutes < float("inf"):
        raise UsageError(f"--minutes {options.minutes:g} is no length of time; give minutes, such as 8")
    if options.out is not None:
        _clear(Path(options.out), file)
    if options.out is not None and Path(options.out).exists() and not options.overwrite:
        raise RunError(f"{options.out} is there already; give another --out, or --resume it")
    for name in _decided_by_it(option, options, settings):
        remedy = "leave one of them out" if option.startswith("--") else "leave it out"
        raise UsageError(f"{name} cannot go with {option}, which tries several adapters; {remedy}")
    out, options, settings, _ = resolved(options, settings)
    out.mkdir(parents=True)
    locks.take(out)
    common = {name: getattr(settings, name) for name in STEPWISE}
    epochs = None if isinstance(settings.epochs, Default) else settings.epochs
    write_json(out / file, {"minutes": options.minutes, "epochs": epochs, **common, REFIT: options.refit})
    return out, _limit(options.minutes), dataclasses.replace(options, refit=False), settings


def _clear(out: Path, file: str) -> None:
    """Remove the folder of a search that was stopped before its first candidate was begun: it holds nothing yet."""
    there = [path.relative_to(out).parts for path in out.rglob("*")] if (out / file).is_file() else []
    if there and all(parts[-1].startswith(".") or parts in {(file,), (FOLDER,)} for parts in there):
        with FolderLocks() as locks:
            locks.take(out)
            shutil.rmtree(out)


def _begun_before(
    file: str, option: str, options: RunOptions, settings: TrainingSettings
) -> tuple[Path, float, RunOptions, TrainingSettings]:
    """Open the folder of an interrupted search, and return the same as `begun`."""
    out = Path(str(options.resume))
    if out.is_dir() and not (out / file).exists():
        raise RunError(f"{out} was not begun by {option}: it has no {file}; --resume a folder that was")
    facts, first = read_json(out, file), out / FOLDER / "1"
    epochs = facts.get("epochs", "")
    if not (epochs is None or type(epochs) is int) or not first.is_dir():
        raise RunError(f"{out / file} has no epochs, or no candidate was begun; begin again, with the same --out")
    minutes = facts.get("minutes")
    if minutes is not None and (type(minutes) not in (int, float) or not minutes > 0):
        raise RunError(f"{out / file} has no minutes; begin again")
    own = {name: value for name in STEPWISE if type(value := facts.get(name)) in (int, float)}
    told = f"cannot be given with --resume: {out} tries several adapters, and goes on as it began"
    for name in _decided_by_it(option, options, settings):
        raise UsageError(f"{name} {told}")
    plain = {name: DEFAULTS[name] for name in ("epochs", "patience", *STEPWISE)}
    as_begun = dataclasses.replace(options, resume=str(first), minutes=None, refit=False)
    _, common, stored, _ = resolved(as_begun, dataclasses.replace(settings, **plain))
    decided = DEFAULTS["epochs"] if epochs is None else epochs  # without a number, that of the images decides
    stored = dataclasses.replace(stored, head="auto", epochs=decided, **own)
    changed = {
        **{name: getattr(settings, name) not in (plain[name], getattr(stored, name)) for name in plain},
        "epochs": not isinstance(settings.epochs, Default) and settings.epochs != stored.epochs,
        "minutes": options.minutes is not None,
        "refit": options.refit and facts.get(REFIT) is not True,
    }
    for name in (name for name, other in changed.items() if other):
        raise UsageError(f"--{name.replace('_', '-')} {told}")
    return out, _limit(minutes), common, stored


def _decided_by_it(option: str, options: RunOptions, settings: TrainingSettings) -> list[str]:
    """Return which options are given that a search decides itself, or that cannot go with it."""
    given = {
        "--adapter": options.adapter != DEFAULT_ADAPTER,
        "--head": settings.head != "auto",
        "--plan": options.plan,
        "--shard": options.shard is not None,
        "--folds": options.folds is not None,
        "--from": options.from_run is not None,
        "--max-minutes": options.max_minutes is not None,
        "--overwrite": options.overwrite,
        "--refit": options.refit and option != "--minutes",
    }
    return [name for name, there in given.items() if there]


def _epochs_of(run: Path, usual: int) -> int:
    """Return the epochs that a candidate began with, fewer than usual where there was no time for more."""
    config = read_json(run, "config.json") if (run / "config.json").exists() else {}
    settings = config.get("settings")
    epochs = settings.get("epochs") if isinstance(settings, dict) else None
    return epochs if type(epochs) is int else usual


def _limit(minutes: float | None) -> float:
    return float("inf") if minutes is None else float(minutes)


def _standing(results: Sequence[Result]) -> str:
    """Say which candidate leads, and by how much."""
    best, first = best_of(results), results[0]
    if best is first or not len(best.right):
        return f"{best.candidate.name} leads with {percent(best.score)}"
    return f"{best.candidate.name} leads with {percent(best.score)}: {best.told_against(first)}"
