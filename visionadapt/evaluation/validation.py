"""What a run says of its own validation part: calibration, predictions and figures, from features at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest, Source, manifest_of
from visionadapt.data.dataset import Finding
from visionadapt.data.loading import choose_workers
from visionadapt.errors import UsageError
from visionadapt.evaluation.evaluate import EVALUATIONS
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.writing import write_figures, write_predictions
from visionadapt.frozen.cache.store import default_folder
from visionadapt.frozen.features import Features, compute_features, pad, run_suffix
from visionadapt.frozen.plan import Plan, plan_of
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import FITS, WANTED_PRECISION, Calibration
from visionadapt.prediction.distance import fit_distance
from visionadapt.prediction.prediction import Prediction, predictions
from visionadapt.tasks import plain_task

MEASURED_ROWS = 5_000
"""Training pictures that the distance is measured on, at most."""
FOLDER = "validation"


def calibrate(
    model: Classifier,
    train: Source | Manifest,
    val: Source | Manifest,
    prepare: Preprocessing,
    *,
    wanted_precision: float = WANTED_PRECISION,
    cache: str | Path | None = None,
) -> Calibration:
    """Learn from validation pictures how sure a classifier may be that `fit` has trained; `save` takes the result.

    Args:
        model: the trained classifier.
        train, val, prepare: what it was trained on.
        wanted_precision: share of right ones among the predictions that do not abstain, in (0, 1).
        cache: the folder that `fit` was given.

    Raises:
        UsageError: the classifier was not trained in this process, or the precision cannot be.
    """
    check_precision(wanted_precision)
    plan = plan_of(model)
    if plan is None:
        raise UsageError("train the classifier first, in the same process: for epoch in fit(model, …)")
    folder = Path(cache or default_folder())
    parts = [
        compute_features(
            model, rows, prepare, plan, folder, workers=choose_workers(-1, len(rows)), unlabelled=model.task != "single"
        )
        for rows in (manifest_of(train), manifest_of(val))
    ]
    return calibration_of(model, parts[0], parts[1], prepare, plan, wanted_precision)[0]


def check_precision(wanted: float) -> None:
    """Raise UsageError where a wanted precision is none."""
    if not 0 < wanted < 1:
        raise UsageError(f"--target-precision {wanted} is out of range; give a share between 0 and 1, such as 0.95")


def calibration_of(
    model: Classifier,
    train: Features,
    val: Features,
    prepare: Preprocessing,
    plan: Plan,
    wanted_precision: float = WANTED_PRECISION,
) -> tuple[Calibration, Tensor, Tensor]:
    """Fit temperature, threshold and distance of a trained classifier; of a multi-label one the distance alone.

    Returns:
        The calibration, and the validation rows' pooled features [N, D] and logits [N, C], float32.
    """
    features = pooled(model, val, prepare, plan)
    logits = _logits(model, features, plan)
    rows = _some_rows(train)
    groups, count = plain_task(model.task).groups(train.labels[rows], len(model.classes))
    distance = fit_distance(pooled(model, train, prepare, plan, rows), groups, count)
    calibration = FITS[model.task](logits, val.labels, wanted_precision).of(model.task, model.thresholds)
    return dataclasses.replace(calibration, distance=distance.measured_on(features)), features, logits


def evaluation_of(
    calibration: Calibration, val: Features, manifest: Manifest, features: Tensor, logits: Tensor
) -> Evaluation:
    """Evaluate the validation part from its pooled features [N, D] and logits [N, C].

    Args:
        calibration: of the classifier.
        val: the usable rows, and the findings about all.
        manifest: every row of the part.
        features, logits: of the usable rows.
    """
    keys = [val.manifest.key(row) for row in range(len(val))]
    usable = predictions(val.manifest.classes, calibration, keys, features, logits)
    found = tuple(_prediction(finding, manifest, usable) for finding in val.findings)
    truths = tuple(manifest[finding.index].labels for finding in val.findings)
    return EVALUATIONS[calibration.task](val.manifest.classes, found, truths, calibration)


def write_validation(run: Path, evaluation: Evaluation) -> None:
    """Write `validation/evaluation.json` and `validation/predictions.parquet` into a run folder.

    The table has a row for each row of the part: file, true_class, label, probability, abstain, distance, problem and
    probabilities, one for each class in the order of `classes.json`; what a rejected row does not have is null. Where
    images have several classes, it has true_classes and labels, as in `visionadapt.prediction.tables.writing`.

    Raises:
        RunError: they cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    write_predictions(folder / "predictions.parquet", evaluation)
    write_figures(folder, evaluation)


@torch.inference_mode()
def pooled(
    model: Classifier, part: Features, prepare: Preprocessing, plan: Plan, rows: Sequence[int] | None = None
) -> Tensor:
    """Pooled features float32 [N, D] of a part's rows (all of them by default), first view, on the CPU."""
    model.eval()
    rows = range(len(part)) if rows is None else rows
    size = min(plan.batch_size, len(rows))
    found = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        state = {name: pad(tensor, size) for name, tensor in part.batch(some).items()}
        found.append(run_suffix(model, prepare, plan, state)[: len(some)].float().cpu())
    return torch.cat(found)


@torch.inference_mode()
def _logits(model: Classifier, features: Tensor, plan: Plan) -> Tensor:
    """Logits float32 [N, C] of pooled features [N, D], on the CPU."""
    parts = torch.split(features, plan.batch_size)
    return torch.cat([model.head(part.to(plan.device)).cpu() for part in parts])


def _some_rows(train: Features) -> list[int]:
    """At most `MEASURED_ROWS` rows, drawn by a hash of their keys."""
    if len(train) <= MEASURED_ROWS:
        return list(range(len(train)))
    drawn = sorted(range(len(train)), key=lambda row: stable_hash("distance", train.manifest.key(row)))
    return sorted(drawn[:MEASURED_ROWS])


def _prediction(finding: Finding, manifest: Manifest, found: Iterator[Prediction]) -> Prediction:
    if finding.problem is not None:
        return Prediction(manifest.key(finding.index), problem=finding.problem)
    return next(found)
