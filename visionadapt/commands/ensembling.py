"""Put candidates together as an ensemble, where the validation images say that it is better than each of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionadapt.commands.candidates import FOLDER, Candidate, Result, best_of, right_of, score_of, validated
from visionadapt.commands.clock import Clock, spent
from visionadapt.commands.refitting import Again, refitted, write_refitted
from visionadapt.commands.saving import save_report, save_trained
from visionadapt.commands.summary import summary_of
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError
from visionadapt.frozen.features import Features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import choose_cut
from visionadapt.metrics.ensembles import MOST_MEMBERS, choose_members, geometric_mean, is_better
from visionadapt.metrics.paired import difference, macro_f1_difference
from visionadapt.model.classifier import Classifier
from visionadapt.model.ensemble import ensemble
from visionadapt.runs.folder import create, read_json
from visionadapt.runs.saved import load, load_into, read_calibration, read_plan
from visionadapt.system.process import reset_peak_memory
from visionadapt.system.storage import write_json
from visionadapt.training.configured import configured_task
from visionadapt.training.steps import Training

NAME = "ensemble"
_TAKEN = ("ledger.parquet", "rejected.csv", "metrics.jsonl")
"""Files of the first member's run folder that hold for the ensemble too."""


def with_ensemble(
    results: Sequence[Result],
    members: Sequence[Result],
    out: Path,
    reporter: Reporter,
    again: Again,
    settings: TrainingSettings,
) -> list[Result]:
    """Return the results, and that of an ensemble of some of them, if there are any; one made before is kept.

    `settings` are those of the search: they name the figure that chooses.
    """
    if not members:
        return [*results]
    folder = out / FOLDER / NAME
    if not (folder / "summary.json").exists():
        reset_peak_memory()
        reporter.say(f"ensemble of {_and([member.candidate.name for member in members])}")
        _make(folder, members, results[0], reporter, again)
    summary, (own, peak) = read_json(folder, "summary.json"), spent(folder)
    seconds = sum(member.seconds for member in members) + sum(own.values())
    adapters = ", ".join(dict.fromkeys(member.candidate.adapter for member in members))
    candidate = Candidate(f"ensemble of {len(members)}", adapters)
    score = score_of(summary, settings)
    return [*results, Result(candidate, folder, score, right_of(folder), seconds, peak or None)]


def choose_from(results: Sequence[Result], most: int = MOST_MEMBERS, metric: str = "auto") -> list[Result]:
    """Choose up to `most` members of an ensemble among the candidates with trained adapters.

    There are none if no mean of some has a lower cross-entropy on the validation images than the best of them alone, or
    if its accuracy (with the metric `macro_f1`, that) is lower than that of the best candidate by more than chance.
    That it need not be higher is because the highest of several accuracies owes more to chance than that of a mean. If
    the solved head is the best candidate, adapters have yet to prove their worth: the cross-entropy must be lower than
    the head's by more than chance, and the accuracy no lower. The head is no member: it lowers the cross-entropy, but
    cost accuracy on test images.
    """
    best, able = best_of(results), [result for result in results if len(result.right) and _is_adapted(result)]
    if len(able) < 2:
        return []
    found = {result.run: validated(result.run) for result in (*able, best)}
    probabilities, labels = np.stack([found[result.run][0] for result in able]), found[best.run][1]
    places = choose_members(probabilities, labels)[:most]
    together, alone = geometric_mean(probabilities[places]), found[best.run][0]
    if metric == "macro_f1":
        by, _, high = macro_f1_difference(together.argmax(axis=1), alone.argmax(axis=1), labels, together.shape[1])
    else:
        right = together.argmax(axis=1) == labels
        by, _, high = difference(int((right & ~best.right).sum()), int((best.right & ~right).sum()), len(right))
    taken = high >= 0 if _is_adapted(best) else by >= 0 and is_better(together, alone, labels)
    return [able[place] for place in places] if taken and len(places) > 1 else []


def _is_adapted(result: Result) -> bool:
    """Whether it has adapter layers, and did not end with the solved head."""
    return result.candidate.adapter != "none" and _epochs(result) > 0


def chosen(results: Sequence[Result]) -> Result:
    """Return the ensemble, if there is one, or the best candidate."""
    return results[-1] if results[-1].run.name == NAME else best_of(results)


def refit_result(best: Result, results: Sequence[Result], again: Again, reporter: Reporter) -> None:
    """Train the best candidate, or each member of an ensemble, once more on all images, and save that in its place."""
    summary = read_json(best.run, "summary.json")
    if "refit_images" in summary:
        return
    named = {result.candidate.name: result for result in results}
    lost = [name for name in summary.get("ensemble", []) if name not in named]
    if lost:
        raise RunError(f"{best.run} averages a candidate of another version, {lost[0]!r:.100}; begin the search again")
    members = [named[name] for name in summary.get("ensemble", [])]
    parts = [refitted(each.run, _epochs(each), again, reporter) for each in members or [best]]
    features, val = min(parts, key=lambda part: part[0].pipeline.plan.cut)
    if members:
        pipeline = _pipeline([part[0].pipeline.model for part in parts], members, features.pipeline)
        features, val = (dataclasses.replace(part, pipeline=pipeline) for part in (features, val))
    write_refitted(best.run, features, val)
    predictor = load(best.run, features.pipeline.plan.device)
    refit = {"refit_images": len(features), "golden_difference": predictor.golden_difference()}
    write_json(best.run / "summary.json", {**summary, **refit})
    save_report(best.run, val.manifest, predictor, reporter.say)


def _epochs(result: Result) -> int:
    epochs: int = read_json(result.run, "summary.json")["best_epoch"]
    return epochs


def _pipeline(models: Sequence[Classifier], members: Sequence[Result], earliest: Pipeline) -> Pipeline:
    """Return what computes the mean of the members' calibrated logits from the features of the earliest cut."""
    factors = [1 / read_calibration(member.run).temperature for member in members]
    model = ensemble(models, factors)
    plan = dataclasses.replace(earliest.plan, trained=choose_cut(model))
    model.plan = plan.to_json()
    return Pipeline(FrozenPart(model.to(plan.device)), earliest.prepare, plan)


def _make(folder: Path, members: Sequence[Result], head: Result, reporter: Reporter, again: Again) -> None:
    """Make the run folder of an ensemble."""
    clock = Clock()
    with clock.phase("prepare"):
        models = [load(member.run).classifier for member in members]
        earliest = min(members, key=lambda member: read_plan(member.run).cut)  # all can be computed from there
        with reporter.without_answers(tables=False, details=False):
            training, *parts = again(earliest.run, reporter)
        pipeline = _pipeline(models, members, parts[0].pipeline)
        plan = pipeline.plan
        train, val = (dataclasses.replace(part, pipeline=pipeline) for part in parts)
    with clock.phase("save"):
        shutil.rmtree(folder, ignore_errors=True)
        first = next((member for member in members if member.candidate.adapter != "none"), members[0]).run
        create(folder, {"config.json": read_json(first, "config.json"), "plan.json": plan.to_json()}, False)
        for name in _TAKEN:
            if (first / name).exists():
                shutil.copy2(first / name, folder / name)
        target = float(read_json(folder, "config.json")["options"]["target_precision"])
        save_trained(folder, train, val, training.rows["val"], target, lambda line: None)
        predictor = load_into(pipeline.frozen, folder, plan.device)
    facts = _facts(train, val, training, members, head, folder)
    summary = summary_of(train, val, predictor, facts, clock)
    write_json(folder / "summary.json", {**summary, "ensemble": [member.candidate.name for member in members]})
    save_report(folder, val.manifest, predictor, reporter.say)


def _facts(
    train: Features, val: Features, training: Training, members: Sequence[Result], head: Result, folder: Path
) -> dict[str, Any]:
    """Return the validation figures and what else the summary says, as a run returns them of its best epoch."""
    first = read_json(members[0].run, "summary.json")
    pipeline = val.pipeline
    task = configured_task(pipeline.model, train.manifest, training.settings)
    found = task.validation(task.tally(pipeline.logits(val.pooled()), val.labels))
    own = right_of(folder)
    only = (int((own & ~head.right).sum()), int((head.right & ~own).sum()))
    kept = {name: first[name] for name in ("probe_accuracy", "manifest")}
    return {**found.figures, "val_loss": found.loss, **kept, "epoch": first["best_epoch"], "only": only}


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
