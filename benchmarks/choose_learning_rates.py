"""Compare learning rates of adapter methods on validation parts.

`python benchmarks/choose_learning_rates.py NAME=FOLDER ...`

Each method is trained with each of its rates on each data set; a Markdown table row goes to standard output as soon as
it is measured. No test part is ever read.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import visionadapt as va
from visionadapt.errors import DivergenceError

USUAL = (1e-3, 5e-3, 2e-2)
CANDIDATES: dict[str, tuple[float, ...]] = {
    "repadapter(blocks=last:33%)": (1e-3, 2e-3, 5e-3, 1e-2),
    "bottleneck(rank=16, blocks=last:33%)": USUAL,
    "lora(blocks=last:33%)": USUAL,
    "ssf(blocks=last:33%)": USUAL,
    "norm(blocks=last:33%)": USUAL,
    "bitfit(blocks=last:33%)": USUAL,
    "side(blocks=last:33%)": (1e-3, 2e-3, 5e-3),
    "ia3(blocks=last:33%)": (5e-3, 2e-2, 5e-2),
    "convadapter(blocks=last:33%)": (1e-3, 5e-3),
    "dora(blocks=last:33%)": (1e-3, 5e-3),
    "partial(blocks=last:3)": (1e-4, 3e-4, 1e-3),
}


def main(datasets: dict[str, str], methods: list[str], epochs: int, seed: int) -> None:
    """Print a row as soon as it is measured."""
    columns = " | ".join(datasets)
    print(f"| method | learning rate | {columns} | mean | CPU seconds an epoch |")
    print("|---|---" + "|---" * (len(datasets) + 2) + "|")
    for method in methods:
        for rate in CANDIDATES[method]:
            measured = [measure(folder, method, rate, epochs, seed) for folder in datasets.values()]
            accuracies, seconds = zip(*measured, strict=True)
            shown = " | ".join(f"{accuracy:.4f}" for accuracy in accuracies)
            mean = statistics.mean(accuracies)
            print(f"| `{method}` | {rate:g} | {shown} | {mean:.4f} | {statistics.mean(seconds):.1f} |", flush=True)


def measure(folder: str, method: str, rate: float, epochs: int, seed: int) -> tuple[float, float]:
    """Train once; return the mean validation accuracy of the last third of the epochs, and the CPU seconds an epoch.

    The mean moves less by chance than one epoch's accuracy. A run that diverges counts as 0. The first epoch's seconds
    are left out, since the frozen part runs before it.
    """
    train, val = va.split(va.sources.FolderSource(folder), seed=seed)
    model = va.classifier(classes=train.classes, adapter=method, seed=seed)
    running = va.fit(
        model, train, val, va.preprocessing_for(model), epochs=epochs, patience=0, learning_rate=rate, seed=seed
    )
    try:
        accuracies = [next(running).val_accuracy]
        started = time.process_time()
        accuracies += [epoch.val_accuracy for epoch in running]
    except DivergenceError:
        return 0.0, math.nan
    return statistics.mean(accuracies[-len(accuracies) // 3 :]), (time.process_time() - started) / (epochs - 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--methods", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="METHOD")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    named = dict(entry.split("=", 1) for entry in arguments.data)
    main(named, arguments.methods, arguments.epochs, arguments.seed)
