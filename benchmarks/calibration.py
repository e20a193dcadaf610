"""What calibration does on photographs: `benchmarks/calibration.py FOLDER ODD`.

    python benchmarks/calibration.py FOLDER ODD > docs/measurements/calibration.md

FOLDER holds train/, validation/ and test/ with a folder a class in each, ODD images of something else. Training and
validation images are merged and split again, a fifth of each class for validation, with five seeds; the test split is
unchanged.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

import visionadapt as va
from visionadapt.core.records import Record
from visionadapt.evaluation.evaluate import evaluate
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import plan_for
from visionadapt.runs.options import DEFAULT_ADAPTER
from visionadapt.sources import FileSource, FolderSource

SEEDS = range(5)
DRAWS = 3
"""Trainings whose mean of logits is measured too, as `train --minutes` makes it."""


class Pooled:
    """The rows of a source that are not for testing, without parts."""

    def __init__(self, source: FolderSource) -> None:
        self.source = source
        self.classes = source.classes

    def __iter__(self) -> Iterator[Record]:
        return (dataclasses.replace(record, split=None) for record in self.source if record.split != "test")

    def read(self, record: Record) -> bytes:
        """The bytes of a row."""
        return self.source.read(record)


def measured(source: FolderSource, odd: va.Manifest, adapter: str, seed: int, draws: int) -> Iterator[dict[str, Any]]:
    """Train and calibrate on one division, measure on the test part: one classifier, then several draws together."""
    train, val = va.split(Pooled(source), val=0.2, seed=seed)
    models, factors = [], []
    for draw in range(draws):
        model = va.classifier(classes=source.classes, adapter=adapter, seed=seed + 100 * draw)
        prepare = va.preprocessing_for(model)
        for _ in va.fit(model, train, val, prepare, seed=seed + 100 * draw):
            pass
        calibration = va.calibrate(model, train, val, prepare)
        models.append(model)
        factors.append(1 / calibration.temperature)
        if draw == 0:
            yield figures(model, prepare, calibration, source, odd)
    if draws > 1:
        model = va.ensemble(models, factors)
        yield figures(model, prepare, va.calibrate(model, train, val, prepare), source, odd)


def figures(
    model: va.Classifier, prepare: va.Preprocessing, calibration: va.Calibration, source: FolderSource, odd: va.Manifest
) -> dict[str, Any]:
    """What a calibrated classifier does on the test images, and on odd ones."""
    frozen = FrozenPart(model.eval())
    predictor = va.Predictor(Pipeline(frozen, prepare, plan_for(frozen)), calibration)
    rows = va.Manifest(source, (record for record in source if record.split == "test"))
    evaluation = evaluate(predictor, rows)
    assert isinstance(evaluation, SingleLabelEvaluation)
    far = [prediction.distance for prediction, _ in predictor.stream(odd) if prediction.problem is None]
    near = [prediction.distance for prediction in evaluation.predictions if prediction.problem is None]
    separation = roc_auc_score([0] * len(near) + [1] * len(far), near + far)
    return {**evaluation.figures(), "separation": separation, "beyond": float((np.array(near) > 1).mean())}


def line(what: str, seed: int, figures: dict[str, Any]) -> str:
    """A line of the table."""
    told = figures["calibration"]
    low, high = told["calibrated_band"]
    right, answered = round(told["precision"] * told["answered"]), told["answered"]
    exact = stats.binomtest(right, answered).proportion_ci(0.95)
    cells = (
        what,
        seed,
        f"{figures['accuracy']:.3f}",
        f"{told['fitted']['temperature']:.2f}",
        f"{told['log_loss_before']:.3f} → {figures['log_loss']:.3f}",
        f"{told['calibration_error_before']:.3f} → {figures['calibration_error']:.3f}",
        f"{low:.3f}–{high:.3f}",
        f"{answered / figures['pictures']:.0%}",
        f"{told['precision']:.3f} ({exact.low:.3f}–{exact.high:.3f})",
        f"{figures['separation']:.4f}",
        f"{figures['beyond']:.1%}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main(folder: str, odd: str) -> None:
    """Write the page."""
    source = FolderSource(folder)
    other = FileSource([path for path in sorted(Path(odd).rglob("*")) if path.is_file()])
    print(PAGE)
    lines: dict[str, list[str]] = {}
    for adapter, draws in (("none", 1), (DEFAULT_ADAPTER, DRAWS)):
        for seed in SEEDS:
            names = (f"`{adapter}`", f"{draws} draws of it together")
            for what, found in zip(
                names, measured(source, va.Manifest(other, other), adapter, seed, draws), strict=False
            ):
                lines.setdefault(what, []).append(line(what, seed, found))
    print("\n".join(each for some in lines.values() for each in some))


PAGE = """# Calibration

Every run fits a temperature (Guo et al., 2017), a threshold for abstaining and a distance on its validation split. This
is their effect on test images: 372 phone photographs of clothes in 10 classes; 786 others are split into training and
validation, a fifth of each class for validation, with five seeds. `benchmarks/calibration.py` writes this page.

- **log-loss** and **ECE** (15 equal-width bins of the top probability) before and after; the **band** contains 95 %
  of the ECEs of a perfectly calibrated classifier with the same probabilities on as many images (simulated).
- **answered** is the share of predictions that do not abstain at a target precision of 0.95, **precision** the share of
  these that are correct, with the Clopper–Pearson interval.
- **AUROC** is how well the distance separates these photographs from the images in `sample_images/`; **beyond 1** is
  the share of the photographs that are farther than 95 % of the validation images.

Label smoothing (0.1 by default) makes a classifier with adapter layers underconfident, so that the temperature is
below 1. `none` is the solved head, and draws differ in their seed and share their split.

| adapter | seed | accuracy | T | log-loss | ECE | band | answered | precision | AUROC | beyond 1 |
|---|---|---|---|---|---|---|---|---|---|---|"""

if __name__ == "__main__":
    main(*sys.argv[1:])
