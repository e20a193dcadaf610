"""`visionadapt compare`: candidates side by side on one split, with a learning curve, advice, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionadapt.commands.candidates import CANDIDATES, FOLDER, Result, best_of
from visionadapt.commands.resolving import COMPARISON
from visionadapt.commands.searching import KEPT, Search, begun
from visionadapt.commands.training_run import features_again, train_within
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.evaluation.advice import advice
from visionadapt.metrics.learning_curve import fit_power_law
from visionadapt.report.comparison import comparison_page
from visionadapt.runs.folder import read_json
from visionadapt.runs.options import RunOptions
from visionadapt.system.locks import FolderLocks
from visionadapt.system.storage import write_json, write_text
from visionadapt.training.configured import task_of_the_head
from visionadapt.training.learning_curve import CurvePoint, learning_curve

PAGE = "comparison.html"


def compare(options: RunOptions, settings: TrainingSettings, reporter: Reporter) -> Path:
    """Train every candidate on the same split, or as many as `options.minutes` allow; return the folder with the page.

    The folder holds a run folder for each, `comparison.json` and `comparison.html`. With `options.resume`, candidates
    that were finished are kept.

    Raises:
        UsageError: an option is given that the candidates differ in, or several processes train.
        RunError: the time is too short for one candidate.
    """
    tried = [candidate for candidate in CANDIDATES if not candidate.draw]
    trusted = options.resume is None or options.trust_run  # a new one has the options that were given
    with FolderLocks() as locks:
        search = Search(*begun(COMPARISON, "compare", options, settings, locks), reporter, train_within, tried)
        out = search.out
        with reporter.if_stopped(f"{KEPT}: go on with compare --resume {out}", out / FOLDER / "1"):
            results = search.results()
            curve = _curve(results[0], reporter, trusted)
        best = best_of(results)
        forecast = _forecast(curve, best, results[0])
        candidates = [_told(result, results[0], best) for result in results]
        facts: dict[str, Any] = {
            **read_json(out, COMPARISON),
            "images": read_json(best.run, "summary.json")["val_images"],
            "candidates": candidates,
            "recommended": best.candidate.name,
            "learning_curve": [vars(point) for point in curve],
            "forecast": forecast,
            "advice": advice(candidates, best.candidate.name, forecast),
        }
        write_json(out / COMPARISON, facts)
        write_text(out / PAGE, comparison_page(out.name, facts))
        rows = {result.candidate.name: result.row(results[0]) for result in results}
        told = {"advice": " ".join(facts["advice"]), "page": str(out / PAGE), "folder": str(out)}
        reporter.table("compared", {**rows, **told})
        reporter.event("comparison", {"folder": str(out), **facts})
        reporter.answer(str(out / PAGE))
    return out


def _told(result: Result, first: Result, best: Result) -> dict[str, Any]:
    facts = result.facts(first)
    if len(result.right) and result is not best:
        facts["against_recommended"] = dict(zip(("difference", "low", "high"), result.against(best), strict=True))
    return facts


def _curve(head: Result, reporter: Reporter, trusted: bool) -> list[CurvePoint]:
    """Measure the learning curve of the solved head on the features that its run has cached."""
    reporter.say("learning curve of the solved head")
    training, train_features, val_features = features_again(head.run, reporter, trusted=trusted)
    task = task_of_the_head(training.model, train_features.manifest, training.settings)
    return learning_curve(train_features, val_features, task, training.settings.seed)


def _forecast(curve: Sequence[CurvePoint], best: Result, head: Result) -> dict[str, Any] | None:
    """Forecast the best candidate's score with twice the images: its error falls as that of the solved head does.

    None if there are too few images for a curve, or nothing is left to gain.
    """
    if len(curve) < 2 or not 0 < head.score < 1:
        return None
    law = fit_power_law([point.images for point in curve], [1 - point.score for point in curve])
    now, twice = curve[-1].images, 2 * curve[-1].images
    if not law.error(now):
        return None
    factor = law.error(twice) / law.error(now)
    return {"images": twice, "score": 1 - (1 - best.score) * factor, "solved_head": 1 - (1 - head.score) * factor}
