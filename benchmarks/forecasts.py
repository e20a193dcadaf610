"""How far off `compare`'s forecasts are: `python -m benchmarks.forecasts NAME=FOLDER …`.

On five splits of each folder, a quarter of the images validates, and half of the others are held back. From the other
half, the validation accuracy of the solved head with all of them is forecast; then it is measured. The last column is
how far off a forecast of no change would be.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import visionadapt as va
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.frozen.planning import Job
from visionadapt.images import augmentation
from visionadapt.metrics.learning_curve import fit_power_law
from visionadapt.sources.opening import manifest_of
from visionadapt.system.cache_folder import default_folder
from visionadapt.training.configured import task_of_the_head
from visionadapt.training.learning_curve import CurvePoint, learning_curve
from visionadapt.training.steps import Training


def main(datasets: dict[str, Path], splits: int) -> None:
    """Measure, and print the table."""
    print("| data | images | points off, mean | largest | no change |")
    print("|---|--:|--:|--:|--:|")
    for name, folder in datasets.items():
        whole = manifest_of(va.sources.FolderSource(folder))
        off, unchanged, count = [], [], 0
        for seed in range(splits):
            train, val = va.split(whole, val=0.25, seed=seed)
            half, _ = va.split(train, val=0.5, seed=seed)
            curve, now = measured(half, val)
            _, actual = measured(train, val)
            law = fit_power_law([point.images for point in curve], [1 - point.score for point in curve])
            factor = law.error(2 * len(half)) / max(law.error(len(half)), 1e-9)
            off.append(100 * abs(1 - (1 - now) * factor - actual))
            unchanged.append(100 * abs(now - actual))
            count = len(train)
        row = (statistics.mean(off), max(off), statistics.mean(unchanged))
        print(f"| {name} | {count} | {' | '.join(f'{value:.1f}' for value in row)} |", flush=True)


def measured(train: Manifest, val: Manifest) -> tuple[list[CurvePoint], float]:
    """The learning curve of the solved head, and its validation accuracy with all images."""
    model = va.classifier(classes=train.classes, adapter=None)
    settings = TrainingSettings().for_model(adapted=False)
    job = Job(len(train), len(val), default_folder())
    rows = {"train": train, "val": val}
    training = Training(model, rows, va.preprocessing_for(model), augmentation(settings.augment), settings, job)
    pipeline = training.pipeline(training.plan())
    features = [training.features(pipeline, split) for split in rows]
    task = task_of_the_head(model, train, settings)
    *_, last = training.epochs(features[0], features[1])
    return learning_curve(features[0], features[1], task), last.val_score


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    main(
        {name: Path(folder) for name, _, folder in (text.partition("=") for text in arguments.datasets)},
        arguments.splits,
    )
