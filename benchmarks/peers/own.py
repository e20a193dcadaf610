"""visionadapt on the same images: train as the command does, then evaluate on the test split."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from visionadapt.system.process import collect_garbage_rarely, leave


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy; $ADAPTER names the adapter layers, the default being the command's."""
    from visionadapt import sources
    from visionadapt.commands.training_run import train as train_run
    from visionadapt.core.settings import TrainingSettings
    from visionadapt.evaluation.evaluate import evaluate, labelled_rows
    from visionadapt.runs.options import RunOptions
    from visionadapt.runs.saved import load

    own = {"adapter": os.environ["ADAPTER"]} if "ADAPTER" in os.environ else {}
    settings = TrainingSettings(epochs=epochs, precision="bfloat16" if careful else "auto", head="trained")
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(data=str(data), out=f"{folder}/run", cache=f"{folder}/cache", **own)
        predictor = load(train_run(options, settings))
        rows, _ = labelled_rows(sources.FolderSource(data), "test", predictor.classes)
        return float(evaluate(predictor, rows).matrix.accuracy)


if __name__ == "__main__":
    collect_garbage_rarely()  # as every command does, before anything large is loaded
    from benchmarks.peers.common import run

    run(train)
    leave(0)  # as every command does
