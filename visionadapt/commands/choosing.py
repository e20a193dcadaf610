"""`train --minutes 8`: train several candidates, and take the one that validates best."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionadapt.commands.candidates import CANDIDATES, FOLDER, Candidate, Result
from visionadapt.commands.ensembling import choose_from, chosen, refit_result, with_ensemble
from visionadapt.commands.refitting import Again
from visionadapt.commands.saving import save_report
from visionadapt.commands.searching import KEPT, REFIT, Search, Train, begun
from visionadapt.console.reporter import Reporter
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, VisionAdaptError
from visionadapt.metrics.selection import accuracy_after_choosing
from visionadapt.runs.folder import read_json
from visionadapt.runs.options import RunOptions
from visionadapt.system.locks import FolderLocks
from visionadapt.system.storage import write_json
from visionadapt.system.text import percent

FILE = "candidates.json"
_DECIDED = "decided"
"""Key in it of what was decided before the last training."""


def train_candidates(
    options: RunOptions, settings: TrainingSettings, reporter: Reporter, train: Train, again: Again
) -> Path:
    """Train candidates by `train` until the time of `options.minutes` is over; return the run folder of the best one.

    That may be an ensemble of some of them. They share the feature cache and the split. The folder also holds the
    candidates' own run folders and a table of them, `candidates.json`. With `options.resume`, candidates that were
    finished are kept.

    Raises:
        UsageError: an option is given that the candidates differ in, or several processes train.
        RunError: the time is too short for one candidate.
    """
    with FolderLocks() as locks:
        out, minutes, common, own = begun(FILE, "--minutes", options, settings, locks)
        refit = read_json(out, FILE).get(REFIT) is True
        search = Search(out, minutes, common, own, reporter, train, _candidates(common), refit=refit, fitted=True)
        with reporter.if_stopped(f"{KEPT}: go on with --resume {out}", out / FOLDER / "1"):
            results = with_ensemble(*decided(search), out, reporter, again, own)
            best = chosen(results)
            if refit:
                refit_result(best, results, again, reporter)
            return _taken(out, results, best, again, reporter)


def _candidates(options: RunOptions) -> Sequence[Candidate]:
    """Return what is tried: a random backbone is drawn by the seed, so that another draw would be another backbone."""
    return [candidate for candidate in CANDIDATES if not candidate.draw or options.weights != "none"]


def decided(search: Search) -> tuple[list[Result], list[Result]]:
    """Return the candidates that were tried, and which of them are put together.

    That is written down: a search that is resumed after one of them was trained once more, on the validation images
    too, must not choose again by these images.
    """
    facts = read_json(search.out, FILE)
    if (before := facts.get(_DECIDED)) is None:
        results = search.results()
        members = choose_from(results, search.members_in_time(), search.settings.metric)
        names = [member.candidate.name for member in members]
        tried = 1 + [one.name for one in search.candidates].index(results[-1].candidate.name)
        write_json(search.out / FILE, {**facts, _DECIDED: {"tried": tried, "members": names}})
        return results, members
    try:
        results = dataclasses.replace(search, candidates=search.candidates[: before["tried"]]).results()
        by_name = {result.candidate.name: result for result in results}
        return results, [by_name[name] for name in before["members"]]
    except (KeyError, TypeError) as error:
        raise RunError(f"{search.out / FILE} is not this version's; begin the search again") from error


def is_choosing(folder: Path) -> bool:
    """Whether a folder holds candidates of which none is taken yet."""
    return (folder / FILE).is_file() and "chosen" not in read_json(folder, FILE)


def _taken(out: Path, results: Sequence[Result], best: Result, again: Again, reporter: Reporter) -> Path:
    """Make the best candidate's run the folder's own, with its report; write and print the table of all."""
    facts: dict[str, Any] = {**read_json(out, FILE), "candidates": [result.facts(results[0]) for result in results]}
    shutil.copytree(best.run, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
    facts["chosen"] = best.candidate.name
    rows = {result.candidate.name: result.row(results[0]) for result in results}
    summary = {**read_json(out, "summary.json"), "chosen_among": len(results)}
    if len(best.right) > 1:
        expected = accuracy_after_choosing(np.stack([result.right for result in results]))
        accuracy = float(best.right.mean())
        corrected = min(expected, accuracy)
        facts["accuracy_after_choosing"] = summary["accuracy_after_choosing"] = corrected
        own = "" if best.scored_by_accuracy else f"; accuracy {percent(accuracy)}"
        rows["chosen"] = (
            f"{best.candidate.name}: {percent(best.score)}{own}; corrected for having been chosen, {percent(corrected)}"
        )
    write_json(out / "summary.json", summary)
    write_json(out / FILE, facts)
    images: Manifest | VisionAdaptError
    try:
        with reporter.without_answers(tables=False, details=False):
            images = again(results[0].run, reporter)[2].manifest
    except VisionAdaptError as error:  # the run is complete without its report
        images = error
    report = save_report(out, images, None, reporter.say)
    reporter.table("candidates", {**rows, "report": report, "run folder": str(out)})
    reporter.event("candidates", {"run": str(out), **facts})
    reporter.answer(str(out))
    return out
