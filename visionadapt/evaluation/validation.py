"""What a run says of its own validation part: calibration, predictions and figures, from features at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest, Source, manifest_of
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.dataset import Finding
from visionadapt.errors import UsageError
from visionadapt.evaluation.evaluate import EVALUATIONS
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.writing import write_figures, write_predictions
from visionadapt.frozen.cache.store import default_folder
from visionadapt.frozen.features import Features, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import Job, plan_for
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.prediction.calibration import FITS, TARGET_PRECISION, Calibration
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
    target_precision: float = TARGET_PRECISION,
    cache: str | Path | None = None,
) -> Calibration:
    """Learn from validation images how far a trained classifier's probabilities can be trusted, for `save`.

    Args:
        model: the classifier, trained by `fit` or in a custom loop.
        train, val, prepare: what it was trained on.
        target_precision: share of right ones among the predictions that do not abstain, in (0, 1).
        cache: the folder that `fit` was given.

    Raises:
        UsageError: the precision is out of range.
    """
    check_precision(target_precision)
    folder, rows = Path(cache or default_folder()), (manifest_of(train), manifest_of(val))
    frozen = FrozenPart(model.eval())
    pipeline = Pipeline(frozen, prepare, plan_for(frozen, Job(len(rows[0]), len(rows[1]), folder)))
    settings = TrainingSettings(task="auto" if model.task == "single" else "multilabel")
    parts = [compute_features(pipeline, part, settings, folder) for part in rows]
    return calibration_of(parts[0], parts[1], target_precision)[0]


def check_precision(wanted: float) -> None:
    """Raise UsageError where a wanted precision is none."""
    if not 0 < wanted < 1:
        raise UsageError(f"--target-precision {wanted} is out of range; give a share between 0 and 1, such as 0.95")


def calibration_of(
    train: Features, val: Features, target_precision: float = TARGET_PRECISION
) -> tuple[Calibration, Tensor, Tensor]:
    """Fit temperature, threshold and distance of a trained classifier; of a multi-label one the distance alone.

    Returns:
        The calibration, and the validation rows' pooled features [N, D] and logits [N, C], float32.
    """
    model = val.pipeline.model
    features = val.pooled()
    logits = val.pipeline.logits(features)
    rows = _some_rows(train)
    groups, count = plain_task(model.task).groups(train.labels[rows], len(model.classes))
    distance = fit_distance(train.pooled(rows), groups, count)
    calibration = FITS[model.task](logits, val.labels, target_precision).of(model.task, model.thresholds)
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
