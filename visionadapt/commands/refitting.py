"""`train --refit`: train a chosen classifier once more, on the validation images too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from visionadapt.console.reporter import Reporter
from visionadapt.evaluation.validation import distance_of
from visionadapt.frozen.features import Features, compute_features
from visionadapt.prediction.golden import golden_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.saved import read_calibration, read_model, write_trained
from visionadapt.training.steps import Training
from visionadapt.training.trainer import Trainer

Again = Callable[[Path, Reporter], tuple[Training, Features, Features]]
"""Returns what a run trains, with the weights that it began with, and its features, mostly cached."""


def refit(folder: Path, epochs: int, again: Again, reporter: Reporter) -> int:
    """Replace the classifier of a run by one that is trained on all its images; return their number.

    It is trained for as many epochs as the best one, on the schedule of all; 0 solves the head. Temperature and
    thresholds stay those that were measured on the validation images before, and so do the validation results.
    """
    features, val = refitted(folder, epochs, again, reporter)
    write_refitted(folder, features, val)
    return len(features)


def refitted(folder: Path, epochs: int, again: Again, reporter: Reporter) -> tuple[Features, Features]:
    """Train a run's classifier anew on all of its images; return the features of all, and of the validation images.

    The features' pipeline has the classifier.
    """
    with reporter.without_answers(tables=False, details=False):
        training, train, val = again(folder, reporter)
    rows = train.manifest.including(val.manifest, range(len(val)))
    augment = None if training.augment.is_none else training.augment
    features = compute_features(train.pipeline, rows, training.settings, training.job.folder, augment=augment)
    reporter.say(f"training once more, on all {len(features)} images")
    with reporter.progress("epochs of the last training") as progress:
        trainer = Trainer(features, val, training.settings)
        trainer.begin()
        for done in range(1 if training.settings.solved else epochs):
            trainer.unjudged_epoch()
            progress(done + 1, epochs)
    trainer.take_last()
    return features, val


def write_refitted(folder: Path, features: Features, val: Features) -> None:
    """Write the classifier of all images' features into a run folder, with the calibration that is there."""
    before, model = read_calibration(folder), features.pipeline.model
    if (thresholds := read_model(folder)[0].get("thresholds")) is not None:
        model.thresholds = thresholds.detach().clone().to(model.thresholds)
    calibration = dataclasses.replace(before, distance=distance_of(features).measured_on(val.pooled()))
    files = ((val.manifest.key(row), val.manifest.read(row)) for row in range(min(len(val), 64)))
    logits = val.pipeline.logits(val.pooled())
    write_trained(folder, Predictor(features.pipeline, calibration, golden_images(features.pipeline, files, logits)))
