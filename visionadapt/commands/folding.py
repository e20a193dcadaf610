"""Cross-validation: `train --folds 5` trains one classifier per fold, in run folders side by side."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visionadapt.commands.resolving import resolved
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, UsageError
from visionadapt.metrics.words import value_of, words
from visionadapt.runs.folder import read_json
from visionadapt.runs.options import RunOptions
from visionadapt.system import distributed
from visionadapt.system.storage import write_json

FILE = "folds.json"

Train = Callable[[RunOptions, TrainingSettings, Reporter], Path]


def train_folds(options: RunOptions, settings: TrainingSettings, reporter: Reporter, train: Train) -> Path:
    """Train one classifier per fold by `train`; return the folder of their run folders.

    Every row but those marked test is validated in one fold. The frozen part runs once per image, since the folds share
    the feature cache. With `options.resume`, whole folds are kept and the others are trained.

    Raises:
        UsageError: the number of folds is too small, or several processes train.
    """
    if distributed.world_size() > 1:
        raise UsageError("--folds trains in one process; with torchrun, start each fold by itself: --fold 1/5, …")
    out, k, options, settings = _begun(options, settings)
    for number in range(1, k + 1):
        folder = out / f"fold-{number}"
        if folder.exists():
            own = dataclasses.replace(options, out=None, fold=None, folds=None, resume=str(folder))
        else:
            own = dataclasses.replace(options, out=str(folder), fold=f"{number}/{k}", folds=None, resume=None)
        stopped = f"stopped; every fold is kept, up to its last whole epoch: go on with --resume {out}"
        with reporter.if_stopped(stopped, out / "fold-1"), reporter.without_answers():
            run = train(own, settings, reporter)
        if not (run / "summary.json").exists():  # its time is over
            reporter.say(f"fold {number} of {k} is not finished: go on with --resume {out}")
            reporter.answer(str(out))
            return out
    _report(out, [read_json(out / f"fold-{number}", "summary.json") for number in range(1, k + 1)], reporter)
    return out


def _begun(options: RunOptions, settings: TrainingSettings) -> tuple[Path, int, RunOptions, TrainingSettings]:
    """Return the folder, the number of folds, and what every fold is trained with."""
    if options.resume is not None:
        out = Path(options.resume)
        k = read_json(out, FILE).get("folds")
        if not isinstance(k, int) or k < 2:
            raise RunError(f"{out / FILE} has no number of folds; train again")
        first = dataclasses.replace(options, resume=str(out / "fold-1"))
        _, options, settings, _ = resolved(first, settings)
        return out, k, options, settings
    if options.fold is not None or options.folds is None or options.folds < 2:
        raise UsageError(f"--folds {options.folds} cannot be: give 2 or more, and no --fold")
    if options.refit:
        raise UsageError("--refit cannot go with --folds, which measures; train once with --refit")
    if options.plan:
        raise UsageError("--plan cannot go with --folds; give --fold 1/5 --plan for the plan of one fold")
    folder, options, settings, _ = resolved(options, settings)
    if folder.exists():
        raise RunError(f"{folder} is there already; give another --out, or --resume it")
    folder.mkdir(parents=True)
    write_json(folder / FILE, {"folds": options.folds})
    return folder, int(str(options.folds)), options, settings


def _report(out: Path, summaries: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """Write and print mean and standard deviation of each validation metric over the folds."""
    names = [name for name, value in summaries[0].items() if name.startswith("val_") and isinstance(value, float)]
    found, rows = {}, {}
    for name in names:
        values = [float(summary[name]) for summary in summaries]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        found[name] = {"mean": mean, "deviation": deviation, "folds": values}
        title = words(name).replace("val", "validation", 1)
        rows[title] = f"{value_of(name, mean)} ± {value_of(name, deviation)}"
    write_json(out / FILE, {"folds": len(summaries), "metrics": found})
    reporter.table("cross-validated", {**rows, "run folders": f"{out}/fold-1 … fold-{len(summaries)}"})
    reporter.event("folds", {"run": str(out), "metrics": found})
    reporter.answer(str(out))
