"""Compare heads on frozen features by repeated splits: `python -m benchmarks.choose_head FOLDER [--images 4 16 64]`.

For every number of training images per class and split, each head is fitted to these and measured on the other images
that are not marked as test. No test data is read.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import visionadapt as va
from visionadapt.sources.opening import manifest_of
from visionadapt.tasks.classification import LABEL_SMOOTHING
from visionadapt.training.folds import FOLDS
from visionadapt.training.optimizer import schedule
from visionadapt.training.solved_head import LabelledFeatures, solve_head

Head = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Training features [N, D], labels [N], other features [M, D] and the number of classes → scores [M, C]."""


def solved(
    train: Tensor,
    labels: Tensor,
    others: Tensor,
    classes: int,
    *,
    smoothing: float = LABEL_SMOOTHING,
    own: int | None = None,
) -> Tensor:
    """The solved head; features are divided by √(σ² + σ̄²). With `own`, the first features are a choice too."""
    ranks = torch.cat([torch.arange(int(count)) for count in labels.bincount()])
    folds = torch.empty_like(labels)
    folds[labels.argsort(stable=True)] = ranks % FOLDS
    targets = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return solve_head(LabelledFeatures(train, targets, folds, own=own)).logits(others)


def solved_by_deviation(train: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """The same with features divided by σ."""
    deviation = train.std(0, unbiased=False).clamp_min(1e-6)
    return solved(train / deviation, labels, others / deviation, classes)


def trained(train: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """A head trained in steps with the default settings of `--head trained`."""
    mean, deviation = train.mean(0), train.std(0, unbiased=False).clamp_min(1e-6)
    rows, head = (train - mean) / deviation, torch.nn.Linear(train.shape[1], classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    groups = [{"params": [head.weight], "weight_decay": 0.1}, {"params": [head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    steps, done = 20 * -(-len(rows) // 32), 0
    for _ in range(20):
        for batch in torch.randperm(len(rows)).split(32):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * schedule(done, steps, 0.1)
            optimizer.zero_grad()
            F.cross_entropy(head(F.dropout(rows[batch], 0.3)), labels[batch], label_smoothing=0.1).backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            done += 1
    with torch.no_grad():
        return torch.as_tensor(head((others - mean) / deviation))


def class_means(train: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """Cosine similarity to the mean of each class, of centred features."""
    rows, others = (F.normalize(part - train.mean(0), dim=1) for part in (train, others))
    means = torch.stack([rows[labels == label].mean(0) for label in range(classes)])
    return others @ F.normalize(means, dim=1).T


def neighbours(train: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """Votes of the five nearest training images by cosine similarity, of centred features."""
    rows, others = (F.normalize(part - train.mean(0), dim=1) for part in (train, others))
    similarity, nearest = (others @ rows.T).topk(min(5, len(rows)), dim=1)
    return torch.zeros(len(others), classes).scatter_add_(1, labels[nearest], (similarity / 0.07).exp())


HEADS: dict[str, Head] = {
    "solved, √(σ² + σ̄²)": solved,
    "the same, unsmoothed": partial(solved, smoothing=0.0),
    "solved, σ": solved_by_deviation,
    "trained in steps": trained,
    "class means": class_means,
    "5 neighbours": neighbours,
}


def main(folder: Path, images: list[int], splits: int) -> None:
    """Print the mean accuracy of each head on the last features, and of solved ones on those of the last blocks too."""
    features, own_features, labels, classes = pooled(folder)
    wide = {
        "solved, blocks": solved,
        "solved, last, blocks or both": partial(solved, own=own_features),
        "the same, unsmoothed, blocks or both": partial(solved, own=own_features, smoothing=0.0),
    }
    heads: dict[str, tuple[Head, int]] = {
        **{name: (head, own_features) for name, head in HEADS.items()},
        **{name: (head, features.shape[1]) for name, head in wide.items()},
    }
    print("| images per class | " + " | ".join(heads) + " |\n|--:|" + "--:|" * len(heads))
    for count in images:
        found: dict[str, list[float]] = {name: [] for name in heads}
        for seed in range(splits):
            torch.manual_seed(seed)
            order = torch.randperm(len(labels))
            own = torch.cat([order[labels[order] == label][:count] for label in range(classes)])
            rest = torch.ones(len(labels), dtype=torch.bool)
            rest[own] = False
            for name, (head, width) in heads.items():
                scores = head(features[own, :width], labels[own], features[rest, :width], classes)
                found[name].append(float((scores.argmax(1) == labels[rest]).double().mean()))
        print(f"| {count} | " + " | ".join(f"{statistics.mean(row):.4f}" for row in found.values()) + " |", flush=True)


@torch.inference_mode()
def pooled(folder: Path) -> tuple[Tensor, int, Tensor, int]:
    """Features of the images that are not marked as test: the last pooled ones and those of the last blocks [N, D].

    Also the number of the former, the labels [N], and the number of classes.
    """
    rows = manifest_of(va.sources.FolderSource(folder))
    rows = rows.select(row for row in range(len(rows)) if rows.split(row) != "test")
    model = va.classifier(classes=rows.classes)
    model.use_features("blocks")
    model.eval()
    prepare = va.preprocessing_for(model)
    parts = []
    for start in range(0, len(rows), 32):
        pixels = torch.stack([prepare.host(rows.read(row)) for row in range(start, min(start + 32, len(rows)))])
        parts.append(model.features({"x": prepare.device(pixels)}, 0))
    labels = torch.tensor([rows.label(row) for row in range(len(rows))])
    return torch.cat(parts).clone(), model.backbone.own_features, labels, len(rows.classes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[2, 4, 8, 16, 32, 60])
    parser.add_argument("--splits", type=int, default=5)
    given = parser.parse_args()
    main(given.folder, given.images, given.splits)
