"""The summary of a finished training run, as `summary.json` holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from visionadapt.commands.clock import Clock
from visionadapt.frozen.features import Features
from visionadapt.prediction.golden import MOST_IMAGES
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs import ledger
from visionadapt.tasks import plain_task
from visionadapt.training.baselines import majority_accuracy


def summary_of(
    train: Features, val: Features, predictor: Predictor, best: Mapping[str, Any], clock: Clock
) -> dict[str, Any]:
    """Return the contents of `summary.json`.

    Args:
        train, val: the features of both splits.
        predictor: the trained classifier, as it was read back from the run folder.
        best: metrics of the best epoch, and `probe_accuracy`, `only`, `manifest`, and maybe `stopped_after` and
            `hopeless`, of the run.
        clock: of the run.
    """
    model = train.pipeline.model
    parameters = list(model.parameters())
    scored = plain_task(model.task).has_accuracy
    return {
        "task": model.task,
        **{name: value for name, value in best.items() if name.startswith("val_")},
        "majority_accuracy": majority_accuracy(train.labels, val.labels) if scored else None,
        "probe_accuracy": best["probe_accuracy"],
        "only_this_classifier": best["only"][0],
        "only_probe": best["only"][1],
        "best_epoch": best["epoch"],
        "stopped_after": best.get("stopped_after"),
        **({"hopeless": True} if best.get("hopeless") else {}),
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "total_parameters": sum(parameter.numel() for parameter in parameters),
        **clock.facts(),
        "images": ledger.count_statuses([*train.findings, *val.findings]),
        "train_images": len(train),
        "val_images": len(val),
        "val_rows": len(val.findings),
        "val_rejected": len(val.findings) - len(val),
        "prefix_forwards": train.computed + val.computed,
        "golden_difference": _to_check_with(predictor, train, val).golden_difference(),
        "manifest": best["manifest"],
        "estimate": dict(train.pipeline.plan.estimate),
    }


def _to_check_with(predictor: Predictor, train: Features, val: Features) -> Predictor:
    """Return the predictor with the eager engine if no features were computed in this run.

    In float32, with only the head trained, the engines are nearly equal, and building one takes longer than the rest
    of such a run.
    """
    plan = predictor.plan
    exact = plan.prefix_precision == "float32" and plan.trained == plan.segments
    if train.computed + val.computed or not exact or not plan.kept:
        return predictor
    few = dataclasses.replace(plan, engine="eager", prefix_batch=MOST_IMAGES)
    return dataclasses.replace(predictor, pipeline=dataclasses.replace(predictor.pipeline, plan=few))
