"""Compare adapters with the solved head on several data sets: `python -m benchmarks.never_worse NAME=FOLDER …`.

For every data set and split, a fifth of the images is held out for testing, and both are trained through `fit` on the
others, a fifth of them for validation. The table has the mean accuracies on the held-out images, their difference, and
the largest loss of the adapters in standard errors of the paired difference. With `--kept FILE.jsonl`, a later run
resumes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import visionadapt as va
from visionadapt.core.records import Manifest
from visionadapt.runs.options import DEFAULT_ADAPTER
from visionadapt.sources.opening import manifest_of


def main(datasets: dict[str, Path], splits: int, most: int | None, kept: Path, other: dict[str, Any]) -> None:
    """Measure what is not kept yet, and print the table."""
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for seed in range(splits):
        for name, folder in datasets.items():
            if any((row["data"], row["seed"]) == (name, seed) for row in done):
                continue
            row = {"data": name, "seed": seed, **measure(va.sources.FolderSource(folder), seed, most, other)}
            done.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
    compared = other["adapter"] or "trained head"
    print(f"| data | images | splits | solved head | {compared} | difference | worst, standard errors | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in datasets:
        print(line(name, [row for row in done if row["data"] == name]))


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """One row of the table."""
    solved, other = (statistics.mean(row[key] for row in rows) for key in ("solved", "other"))
    worst = min((row["gained"] - row["lost"]) / math.sqrt(max(row["gained"] + row["lost"], 1)) for row in rows)
    seconds = statistics.mean(row["seconds"] for row in rows)
    return (
        f"| {name} | {rows[0]['images']} | {len(rows)} | {solved:.4f} | {other:.4f} | {other - solved:+.4f} | "
        f"{worst:+.1f} | {seconds:.0f} |"
    )


def measure(source: va.sources.FolderSource, seed: int, most: int | None, other: dict[str, Any]) -> dict[str, Any]:
    """Train both on one split; return their accuracies on its held-out fifth, and on how many images they differ."""
    whole = manifest_of(source)
    rest, test = list(va.folds(whole, k=5, seed=seed // 5))[seed % 5]
    train, val = va.split(_few(rest, most), val=0.2, seed=seed)
    right, validated, seconds, best = {}, {}, 0.0, 0
    for name, given in (("solved", {"adapter": None}), ("other", other)):
        changes = {key: value for key, value in given.items() if key != "adapter"}
        model = va.classifier(classes=train.classes, adapter=given["adapter"], seed=seed)
        started = time.process_time()
        epochs = list(va.fit(model, train, val, prepare := va.preprocessing_for(model), seed=seed, **changes))
        seconds = time.process_time() - started
        best = epochs[-1].best_epoch
        validated[name] = epochs[best - 1].val_score if best else epochs[-1].state.facts["solved"]
        right[name] = correct(model, test, prepare)
    gained = int((right["other"] & ~right["solved"]).sum())
    lost = int((right["solved"] & ~right["other"]).sum())
    accuracies = {name: float(found.double().mean()) for name, found in right.items()}
    told = {"validated": validated, "best_epoch": best, "curve": [round(epoch.val_score, 4) for epoch in epochs]}
    return {**accuracies, **told, "gained": gained, "lost": lost, "images": len(train) + len(val), "seconds": seconds}


def _few(rows: Manifest, most: int | None) -> Manifest:
    """Return the rows, of each class at most so many."""
    kept: list[int] = []
    counts: dict[int, int] = {}
    for row in range(len(rows)):
        label = rows.label(row)
        counts[label] = counts.get(label, 0) + 1
        if most is None or counts[label] <= most:
            kept.append(row)
    return rows.select(kept)


@torch.inference_mode()
def correct(model: va.Classifier, rows: Manifest, prepare: va.Preprocessing) -> torch.Tensor:
    """Whether each row is classified correctly, bool [N]."""
    model.eval()
    found = []
    for start in range(0, len(rows), 32):
        some = range(start, min(start + 32, len(rows)))
        pixels = prepare.device(torch.stack([prepare.host(rows.read(row)) for row in some]))
        found.append(model(pixels).argmax(1) == torch.tensor([rows.label(row) for row in some]))
    return torch.cat(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--most", type=int, help="images per class at most")
    parser.add_argument("--kept", type=Path, default=Path("never_worse.jsonl"))
    parser.add_argument(
        "--adapter", default=DEFAULT_ADAPTER, help="what to compare with; none: a head trained in steps"
    )
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    named = dict(argument.split("=", 1) for argument in given.data)
    torch.set_num_threads(1)
    none = given.adapter == "none"
    chosen: dict[str, Any] = {"adapter": None, "head": "trained"} if none else {"adapter": given.adapter}
    chosen |= {"epochs": given.epochs} if given.epochs else {}
    main({name: Path(folder) for name, folder in named.items()}, given.splits, given.most, given.kept, chosen)
