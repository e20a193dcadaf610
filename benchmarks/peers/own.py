"""visionadapt on the same pictures: train as the command does, then evaluate on test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.peers.common import run
from visionadapt import runs, sources
from visionadapt.evaluate import labelled_rows
from visionadapt.evaluation import evaluate
from visionadapt.options import RunOptions
from visionadapt.settings import TrainingSettings
from visionadapt.training import train as train_run


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy; $ADAPTER names the adapter layers, the default being the command's."""
    own = {"adapter": os.environ["ADAPTER"]} if "ADAPTER" in os.environ else {}
    cache = os.environ.get("CACHE")
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(data=str(data), out=f"{folder}/run", cache=cache or f"{folder}/cache", **own)
        predictor = runs.load(train_run(options, TrainingSettings(epochs=epochs, patience=0)))
        rows, _ = labelled_rows(sources.FolderSource(data), "test", predictor.classes)
        return float(evaluate(predictor, rows).matrix.accuracy)


if __name__ == "__main__":
    run(train)
