"""Calibrate and evaluate a classifier on its validation split, from features that are computed already."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.evaluation.evaluate import EVALUATIONS
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.writing import write_figures, write_predictions
from visionadapt.frozen.features import Features, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import Job, plan_for
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import TARGET_PRECISION, Calibration, fit_calibration
from visionadapt.prediction.distance import FeatureDistance, fit_distance
from visionadapt.prediction.prediction import predictions
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.cache_folder import default_folder
from visionadapt.tasks import plain_task

MEASURED_ROWS = 5_000
"""Maximum number of training images that the distance is fitted to."""
FOLDER = "validation"


def calibrate(
    model: Classifier,
    train: RowsLike,
    val: RowsLike,
    prepare: Preprocessing,
    *,
    target_precision: float = TARGET_PRECISION,
    cache: str | Path | None = None,
) -> Calibration:
    """Learn from validation images how far a trained classifier's probabilities can be trusted, for `save`.

    Args:
        model: the classifier, trained by `fit` or in a custom loop.
        train, val, prepare: what it was trained on.
        target_precision: share of correct predictions among those that do not abstain, in (0, 1).
        cache: the folder passed to `fit`.

    Raises:
        UsageError: the precision is out of range.
    """
    check_precision(target_precision)
    folder, rows = Path(cache or default_folder()), (manifest_of(train), manifest_of(val))
    frozen = FrozenPart(model.eval())
    pipeline = Pipeline(frozen, prepare, plan_for(frozen, Job(len(rows[0]), len(rows[1]), folder)))
    settings = TrainingSettings(task=model.task)
    parts = [compute_features(pipeline, part, settings, folder) for part in rows]
    return calibration_of(parts[0], parts[1], target_precision)[0]


def check_precision(target: float) -> None:
    """Raise UsageError if a target precision is out of range."""
    if not 0 < target < 1:
        raise UsageError(f"--target-precision {target} is out of range; give a share between 0 and 1, such as 0.95")


def calibration_of(
    train: Features, val: Features, target_precision: float = TARGET_PRECISION
) -> tuple[Calibration, Tensor, Tensor]:
    """Fit temperature, threshold and distance of a trained classifier; for a multi-label one only the distance.

    Return also the validation rows' pooled features [N, D] and logits [N, C], float32.
    """
    model = val.pipeline.model
    features = val.pooled()
    logits = val.pipeline.logits(features)
    distance = distance_of(train)
    calibration = fit_calibration(logits, val.labels, target_precision, model.task).of(model.task, model.thresholds)
    return dataclasses.replace(calibration, distance=distance.measured_on(features)), features, logits


def distance_of(train: Features) -> FeatureDistance:
    """Fit the distance to training images, of which `MEASURED_ROWS` at most; its unit is 1."""
    model, rows = train.pipeline.model, _some_rows(train)
    groups, count = plain_task(model.task).groups(train.labels[rows], len(model.classes))
    return fit_distance(train.pooled(rows)[:, : model.backbone.own_features], groups, count)


def evaluation_of(
    calibration: Calibration, val: Features, manifest: Manifest, features: Tensor, logits: Tensor
) -> Evaluation:
    """Evaluate all rows of the validation split from the features [N, D] and logits [N, C] of its usable rows."""
    classes, rows = val.manifest.classes, [(manifest.key(row.index), row.problem) for row in val.findings]
    found = tuple(predictions(classes, calibration, rows, features, logits))
    truths = tuple(manifest[row.index].labels for row in val.findings)
    return EVALUATIONS[calibration.task](classes, found, truths, calibration)


def write_validation(run: Path, evaluation: Evaluation) -> None:
    """Write `validation/evaluation.json` and `validation/predictions.parquet` into a run folder, or raise RunError.

    The table has the columns of `visionadapt.prediction.tables.writing`, for each row of the split; probabilities are
    in the order of `classes.json`, and missing values of a rejected row are null.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    write_predictions(folder / "predictions.parquet", evaluation)
    write_figures(folder, evaluation)


def _some_rows(train: Features) -> list[int]:
    """At most `MEASURED_ROWS` rows, drawn by a hash of their keys."""
    if len(train) <= MEASURED_ROWS:
        return list(range(len(train)))
    drawn = sorted(range(len(train)), key=lambda row: stable_hash("distance", train.manifest.key(row)))
    return sorted(drawn[:MEASURED_ROWS])
