"""Compare adapters and training settings on validation splits: `python benchmarks/choose_defaults.py NAME=FOLDER ...`.

Results go to standard output as a Markdown table; no test data is read.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import visionadapt as va
from visionadapt.core.settings import TrainingSettings

CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear probe": ("none", {"head": "trained"}),
    "bottleneck 16, last third of the blocks": ("bottleneck(rank=16, blocks=last:33%)", {}),
    "bottleneck 16, last two thirds": ("bottleneck(rank=16, blocks=last:66%)", {}),
    "repadapter 8, last third of the blocks": ("repadapter(blocks=last:33%)", {}),
}


def main(datasets: dict[str, Path], seeds: int) -> None:
    """Print a table row as soon as it is measured."""
    print("| data | candidate | best epoch | mean of the last third | CPU seconds |\n|---|---|---|---|---|")
    for name, (adapter, changes) in CANDIDATES.items():
        for data, folder in datasets.items():
            source = va.sources.FolderSource(folder)
            measured = [measure(source, adapter, changes, seed) for seed in range(seeds)]
            best, late, seconds = (statistics.mean(column) for column in zip(*measured, strict=True))
            print(f"| {data} | {name} | {best:.4f} | {late:.4f} | {seconds:.0f} |", flush=True)


def measure(source: va.sources.FolderSource, adapter: str, changes: dict[str, Any], seed: int) -> tuple[float, ...]:
    """Train once; return the best epoch's validation accuracy, the mean over the last third, and the CPU seconds."""
    train, val = va.split(source, seed=seed)
    model = va.classifier(classes=train.classes, adapter=None if adapter == "none" else adapter, seed=seed)
    started = time.process_time()
    settings = TrainingSettings(**{"seed": seed, "patience": 0, **changes})
    epochs = list(va.fit(model, train, val, va.preprocessing_for(model), settings=settings))
    accuracies = [epoch.val_accuracy for epoch in epochs]
    chosen = epochs[-1].best_epoch
    best = accuracies[chosen - 1] if chosen else epochs[-1].state.facts["probe_accuracy"]
    return best, statistics.mean(accuracies[-len(accuracies) // 3 :]), time.process_time() - started


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main({name: Path(folder) for name, folder in named.items()}, seeds=1)
