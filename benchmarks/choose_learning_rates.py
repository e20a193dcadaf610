"""Compare learning rates of adapter methods on validation splits.

`python benchmarks/choose_learning_rates.py NAME=FOLDER ...`

Each method is trained with each of its rates on each data set; a Markdown table row goes to standard output as soon as
it is measured. No test data is read.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter

import visionadapt as va
from visionadapt.core.records import Manifest
from visionadapt.errors import DivergenceError
from visionadapt.sources.opening import manifest_of

CANDIDATES: dict[str, tuple[float, ...]] = {
    "repadapter(blocks=last:3)": (1e-3, 3e-3, 1e-2),
    "bottleneck(rank=16, blocks=last:3)": (2e-3, 5e-3, 1.5e-2),
    "lora(blocks=last:3)": (1e-3, 3e-3, 1e-2),
    "norm(blocks=last:3)": (5e-3, 1.5e-2),
    "ssf(blocks=last:3)": (2e-3, 5e-3, 1.5e-2, 4e-2),
    "bitfit(blocks=last:3)": (5e-3, 1.5e-2),
    "ia3(blocks=last:3)": (1.5e-2, 4e-2),
    "side(blocks=last:3)": (1e-3, 3e-3),
    "partial(blocks=last:3)": (3e-4, 1e-3),
    "convadapter(blocks=last:3)": (1e-3, 3e-3),
    "dora(blocks=last:3)": (1e-3, 3e-3),
}


def main(
    datasets: dict[str, str], candidates: dict[str, tuple[float, ...]], epochs: int, seed: int, limit: int
) -> None:
    """Print a row as soon as it is measured."""
    print(f"| method | learning rate | {' | '.join(datasets)} | mean accuracy | mean loss |")
    print("|---|--:" + "|--:" * (len(datasets) + 2) + "|")
    for method, rates in candidates.items():
        for rate in rates:
            measured = [measure(folder, method, rate, epochs, seed, limit) for folder in datasets.values()]
            accuracies, losses = zip(*measured, strict=True)
            shown = " | ".join(f"{accuracy:.4f}" for accuracy in (*accuracies, statistics.mean(accuracies)))
            print(f"| `{method}` | {rate:g} | {shown} | {statistics.mean(losses):.4f} |", flush=True)


def measure(folder: str, method: str, rate: float, epochs: int, seed: int, limit: int) -> tuple[float, float]:
    """Train once; return validation accuracy and loss, as means over the last third of the epochs.

    A mean moves less by chance than one epoch's accuracy. A run that diverges counts as right nowhere.
    """
    train, val = va.split(va.sources.FolderSource(folder), seed=seed)
    model = va.classifier(classes=train.classes, adapter=method, seed=seed)
    settings = va.TrainingSettings(epochs=epochs, patience=0, learning_rate=rate, seed=seed)
    try:
        done = list(va.fit(model, train, first(val, limit), va.preprocessing_for(model), settings=settings))
    except DivergenceError:
        return 0.0, math.inf
    late = done[-len(done) // 3 :]
    return statistics.mean(epoch.val_accuracy for epoch in late), statistics.mean(epoch.val_loss for epoch in late)


def first(rows: Manifest, limit: int) -> Manifest:
    """The first rows of each class."""
    rows, seen, chosen = manifest_of(rows), Counter[int](), []
    for index in range(len(rows)):
        seen[rows.label(index)] += 1
        if seen[rows.label(index)] <= limit:
            chosen.append(index)
    return rows.select(chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--methods", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--rates", nargs="*", type=float, help="by default each method's own in this file")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=20, help="validation images per class")
    arguments = parser.parse_args()
    named = dict(entry.split("=", 1) for entry in arguments.data)
    chosen = {method: arguments.rates or CANDIDATES[method] for method in arguments.methods}
    main(named, chosen, arguments.epochs, arguments.seed, arguments.limit)
