"""Compare adapters and training settings on validation parts: `python benchmarks/choose_defaults.py NAME=FOLDER ...`.

For each data set, candidate and seed: train, note the best epoch's validation accuracy and the last one's, and the
seconds that the epochs took. Results go to standard output as a Markdown table; no test part is ever read.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import torch

import visionadapt as va
from visionadapt.settings import TrainingSettings

CANDIDATES = {
    "probe": ("none", {}),
    "bottleneck 8, last two thirds": ("bottleneck(rank=8, blocks=last:66%)", {}),
    "bottleneck 16, last two thirds": ("bottleneck(rank=16, blocks=last:66%)", {}),
    "bottleneck 32, last two thirds": ("bottleneck(rank=32, blocks=last:66%)", {}),
    "lora 8, last two thirds": ("lora(rank=8, blocks=last:66%)", {}),
}


def main(datasets: dict[str, Path], candidates: dict, seeds: int) -> None:
    """Print a table row as soon as it is measured."""
    print("| data | candidate | best val | last val | spread of best | seconds |\n|---|---|---|---|---|---|")
    for data, folder in datasets.items():
        source = va.sources.FolderSource(folder)
        for name, (adapter, changes) in candidates.items():
            runs = [measure(source, adapter, changes, seed) for seed in range(seeds)]
            best, last, seconds = (list(column) for column in zip(*runs, strict=True))
            print(
                f"| {data} | {name} | {statistics.mean(best):.4f} | {statistics.mean(last):.4f} | "
                f"{max(best) - min(best):.4f} | {statistics.median(seconds):.1f} |",
                flush=True,
            )


def measure(source, adapter: str, changes: dict, seed: int) -> tuple[float, float, float]:
    """Train once; return best and last validation accuracy, and the epochs' seconds."""
    train, val = va.split(source, seed=seed)
    model = va.classifier(classes=train.classes, adapter=None if adapter == "none" else adapter, seed=seed)
    settings = TrainingSettings(**{"seed": seed, "patience": 0, **changes})
    cache = Path(os.environ.get("BENCHMARK_CACHE", "/tmp/visionadapt-benchmark"))
    started, accuracies, seconds = time.perf_counter(), [], 0.0
    for epoch in va.fit(model, train, val, va.preprocessing_for(model), settings=settings, cache=cache):
        accuracies.append(epoch.val_accuracy)
        seconds += epoch.seconds
    print(f"# {adapter} {changes} seed {seed}: {accuracies} {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return max(accuracies), accuracies[-1], seconds


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", torch.get_num_threads())))
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main({name: Path(folder) for name, folder in named.items()}, CANDIDATES, seeds=2)
