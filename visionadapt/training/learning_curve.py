"""A learning curve: how well the head that is solved on a part of the training images does, by the size of the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from visionadapt.frozen.features import Features
from visionadapt.tasks import Task
from visionadapt.training.head_rows import HeadRows
from visionadapt.training.solved_head import LabelledFeatures, solve_head

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the training images."""
DRAWS = 5
"""How often each share is drawn."""
_MANY = 20_000
"""Training images from which on each share is drawn once."""
_FEWEST = 2
"""Images per class on average that a share needs to have."""


@dataclass(frozen=True)
class CurvePoint:
    """The mean validation score of heads that were solved on so many images, and how many heads these are."""

    images: int
    score: float
    draws: int


def learning_curve(train: Features, val: Features, task: Task, seed: int = 0) -> list[CurvePoint]:
    """Solve the head on random shares of the training images; each share is part of the next one.

    Images of one group are drawn together. Shares with fewer than two images per class are left out.

    Args:
        train, val: features of the frozen backbone.
        task: decides and scores; its score is the accuracy, or the mean average precision for several labels.
        seed: of the draws.
    """
    model = train.pipeline.model
    rows = HeadRows(train.manifest, train.labels, model.backbone.num_features)
    for start, features in train.shared_pooled(0):
        rows.add(features, start)
    data = replace(rows.labelled(rows.features(), task), own=model.backbone.own_features)
    held_out = val.pooled().float()
    random = np.random.default_rng(seed)
    draws = DRAWS if len(data.features) < _MANY else 1
    orders = [_order(rows.groups(), random) for _ in range(draws)]
    points = []
    for share in SHARES:
        count = round(share * len(data.features))
        if count < _FEWEST * len(model.classes):
            continue
        used = orders if share < 1 else orders[:1]
        scores = [_score(_part(data, order[:count]), held_out, val.labels, task) for order in used]
        points.append(CurvePoint(count, float(np.mean(scores)), len(scores)))
    return points


def _order(groups: Sequence[tuple[str, str]], random: np.random.Generator) -> Tensor:
    """Return the rows, int64 [N], in the order of their groups, which is random."""
    names = sorted(set(groups))
    place = dict(zip(names, random.permutation(len(names)).tolist(), strict=True))
    return torch.tensor(sorted(range(len(groups)), key=lambda row: place[groups[row]]))


def _part(data: LabelledFeatures, rows: Tensor) -> LabelledFeatures:
    weights = None if data.weights is None else data.weights[rows]
    return replace(
        data, features=data.features[rows], targets=data.targets[rows], folds=data.folds[rows], weights=weights
    )


def _score(data: LabelledFeatures, held_out: Tensor, labels: Tensor, task: Task) -> float:
    head = solve_head(data)
    return task.validation(task.tally(head.logits(held_out), labels)).score
