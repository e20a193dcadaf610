"""Save a trained classifier into its run folder, with its validation results and its report."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visionadapt.core.records import Manifest
from visionadapt.errors import VisionAdaptError
from visionadapt.evaluation.validation import calibration_of, evaluation_of, write_validation
from visionadapt.frozen.features import Features
from visionadapt.prediction.golden import golden_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.saved import write_trained


def save_trained(
    folder: Path, train: Features, val: Features, rows: Manifest, target_precision: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Calibrate the classifier of some features, evaluate it on all validation rows, write both; return the metrics."""
    calibration, features, logits = calibration_of(train, val, target_precision)
    evaluation = evaluation_of(calibration, val, rows, features, logits)
    write_validation(folder, evaluation)
    say(str(calibration))
    files = ((val.manifest.key(row), val.manifest.read(row)) for row in range(min(len(val), 64)))
    golden = golden_images(val.pipeline, files, logits)
    write_trained(folder, Predictor(val.pipeline, calibration, golden))
    return evaluation.figures()


def save_report(
    folder: Path, rows: Manifest | VisionAdaptError, predictor: Predictor | None, say: Callable[[str], None]
) -> str:
    """Write the report and return its path; the run is complete without it, so a failure is only told.

    `rows` and `predictor` are as in `write_report`.
    """
    from visionadapt.report.page import write_report

    try:
        return str(write_report(folder, rows, predictor))
    except VisionAdaptError as error:
        return f"could not be made: {error}"
    except Exception as error:  # noqa: BLE001 - told with its complete traceback
        say(traceback.format_exc())
        return f"could not be made, because of a bug in visionadapt ({error!r})"
