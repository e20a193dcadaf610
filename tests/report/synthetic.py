"""Run folders with any number of classes, made of random predictions without training, for reports."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import visionadapt as va
from tests.conftest import SMALL_BACKBONE, tinted
from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.evaluation.evaluate import EVALUATIONS
from visionadapt.evaluation.validation import write_validation
from visionadapt.prediction.calibration import fit_calibration
from visionadapt.prediction.prediction import predictions
from visionadapt.report.page import write_report
from visionadapt.runs.ledger import write_ledger
from visionadapt.system.storage import write_json

LATIN = ("Melanargia galathea", "hen-of-the-woods", "Polyommatus icarus", "six-spot burnet", "Vanessa atalanta")
RIGHT_TO_LEFT = ("פרפר הזנב", "فراشة الملفوف", "طائر اللقلق الأبيض", "קיפוד מצוי")
LONG = tuple(
    f"Class {number} of a name that nobody would give but that some taxonomy has {number}" for number in range(6)
)


def names(count: int) -> tuple[str, ...]:
    """Return names of classes as a botanist would give them."""
    return tuple(f"{LATIN[place % len(LATIN)]} {place + 1}" for place in range(count))


@dataclass(frozen=True)
class DrawnImages:
    """A source whose images are noise, drawn when they are read."""

    rows: tuple[Record, ...]
    classes: tuple[str, ...]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def read(self, record: Record) -> bytes:
        seed = int.from_bytes(hashlib.sha256(record.key.encode()).digest()[:4], "big")
        buffer = io.BytesIO()
        tinted((40, 30), seed, seed).resize((320, 240)).save(buffer, "JPEG")
        return buffer.getvalue()


def make_run(folder: Path, classes: Sequence[str], each: int, *, rejected: int = 0, several: bool = False) -> Path:
    """Make a run folder with `each` validation images of every class, of which the first `rejected` are rejected.

    A quarter of the predictions takes one class for its neighbour. With `several`, images have up to two classes.
    """
    task, random = ("multilabel" if several else "single"), np.random.default_rng(0)
    model = va.classifier(SMALL_BACKBONE, classes=tuple(classes), weights="none", task=task)
    truth = np.repeat(np.arange(len(classes)), each)
    logits = random.normal(0, 1, (len(truth), len(classes)))
    guessed = np.where(random.random(len(truth)) < 0.25, (truth + 1) % len(classes), truth)
    logits[np.arange(len(truth)), guessed] += 6
    logits -= 3 if several else 0
    rows = [
        Record(
            f"{classes[place]}/IMG_{row:05}_taken_on_a_field_trip.jpg",
            (classes[place], *([classes[place - 1]] if several and row % 3 == 0 else [])),
        )
        for row, place in enumerate(truth)
    ]
    problems = ["is not an image: cannot identify the format of its 1,024 bytes", "is empty", "is cut short after 33 %"]
    findings = [
        Finding(row, hashlib.sha256(str(row).encode()).hexdigest(), (), problems[row % 3] if row < rejected else None)
        for row in range(len(rows))
    ]
    usable = torch.from_numpy(logits[rejected:])
    labels = torch.zeros(len(usable), len(classes)) if several else torch.from_numpy(truth[rejected:])
    if several:
        for row, record in enumerate(rows[rejected:]):
            labels[row, [classes.index(name) for name in record.labels]] = 1
    calibration = fit_calibration(usable, labels, 0.95, task).of(task, model.thresholds)
    prepare = va.preprocessing_for(model)
    run = va.save(folder, model, prepare, calibration=calibration)
    told = zip((row.key for row in rows), (finding.problem for finding in findings), strict=True)
    found = tuple(predictions(tuple(classes), calibration, told, torch.zeros(len(usable), 1), usable))
    evaluation = EVALUATIONS[task](tuple(classes), found, tuple(row.labels for row in rows), calibration)
    write_validation(run, evaluation)
    source = DrawnImages(tuple(rows), tuple(classes))
    training = [Record(f"training/{row}.jpg", (classes[place],)) for row, place in enumerate(truth)]
    other = [Finding(row, hashlib.sha256(f"t{row}".encode()).hexdigest()) for row in range(len(training))]
    parts = {"train": (Manifest(source, training), other), "val": (Manifest(source, rows), findings)}
    write_ledger(run, parts)
    _finish(run, evaluation.figures(), several)
    write_report(run, source)
    return run


def _finish(run: Path, figures: dict[str, object], several: bool) -> None:
    """Write what a finished training run has told of itself, for as many epochs as curves need."""
    config = json.loads((run / "config.json").read_text())
    config["options"] = {"data": "drawn", "adapter": "repadapter(blocks=last:33%)", "backbone": SMALL_BACKBONE}
    config["settings"] = {"epochs": 3, "head": "trained"}
    write_json(run / "config.json", config)
    score = "val_mean_average_precision" if several else "val_accuracy"
    lines = [
        {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 2.5 / epoch, score: 0.2 * epoch} for epoch in (1, 2, 3)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    value, images = figures[score.removeprefix("val_")], figures["pictures"]
    summary = {
        "task": "multilabel" if several else "single",
        score: value,
        "majority_accuracy": None if several else 0.1,
        "probe_accuracy": None if several else float(str(value)) - 0.05,
        "only_this_classifier": round(0.1 * float(str(images))),
        "only_probe": round(0.05 * float(str(images))),
        "best_epoch": 3,
        "seconds": {"prepare": 1.5, "features": 7.5, "train": 53.4, "save": 1.7},
        "train_images": figures["rows"],
        "val_images": images,
    }
    write_json(run / "summary.json", summary)
