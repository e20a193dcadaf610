"""A linear probe's opinion on every label, and confident learning on it: which labels are probably wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionadapt.core.naming import stable_hash

FOLDS = 5
_DECAY = 3e-4
_ITERATIONS = 100

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Suspicion(NamedTuple):
    """Rows whose labels are probably wrong, the least probable first.

    Attributes:
        rows: int64 [S].
        estimated: how many wrong labels confident learning counts among all rows.
    """

    rows: Integers
    estimated: int


def assign_folds(labels: Integers, clusters: Sequence[int], keys: Sequence[str], folds: int = FOLDS) -> Integers:
    """The fold of each row, int64 [N]: copies are in one fold, and every class is spread as evenly as that allows.

    Clusters come in the order of their first row's hash, and go where their class has the fewest rows so far.
    """
    members: dict[int, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    sizes: Counter[tuple[int, int]] = Counter()
    result = np.zeros(len(labels), np.int64)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), stable_hash("fold", keys[rows[0]]))):
        label = int(labels[rows[0]])
        fold = min(range(folds), key=lambda fold: (sizes[label, fold], sizes[-1, fold], fold))
        for row in rows:
            result[row] = fold
            sizes[int(labels[row]), fold] += 1
            sizes[-1, fold] += 1
    return result


def out_of_fold(features: Floats, labels: Integers, folds: Integers, classes: int) -> Floats:
    """Probability of every class by a probe that was trained on the other folds: float32 [N, C].

    The probe is multinomial logistic regression with an L2 penalty on standardised features, fitted by L-BFGS.
    """
    result = np.zeros((len(features), classes), np.float32)
    for fold in np.unique(folds):
        held = folds == fold
        train = torch.from_numpy(features[~held])
        deviation, mean = torch.std_mean(train, dim=0, unbiased=False)
        scale = 1 / ((deviation + 1e-6) * features.shape[1] ** 0.5)
        weight, bias = _logistic_regression((train - mean) * scale, torch.from_numpy(labels[~held]), classes)
        logits = (torch.from_numpy(features[held]) - mean) * scale @ weight + bias
        result[held] = logits.softmax(dim=1).numpy()
    return result


def _logistic_regression(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [D, C] and bias [C]."""
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(features @ weight + bias, labels) + _DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def confident_joint(probabilities: Floats, labels: Integers) -> Floats:
    """How many rows are labelled i and confidently look like j, estimated: [C, C].

    A row counts as j where its probability of j reaches the mean that rows labelled j have for their own label, and is
    the highest of those that do. Each line is then scaled to the number of rows labelled i. (C. G. Northcutt, L. Jiang,
    I. L. Chuang, "Confident Learning", JAIR 70, 2021, equations 1 to 3.)
    """
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    sizes = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, minlength=classes) / np.maximum(sizes, 1)
    confident = np.where((probabilities >= thresholds) & (sizes > 0), probabilities, -1.0)
    looks = confident.argmax(axis=1)
    counted = confident[rows, looks] >= 0
    joint = np.zeros((classes, classes), np.float32)
    np.add.at(joint, (labels[counted], looks[counted]), 1)
    scaled: Floats = joint * (sizes / np.maximum(joint.sum(axis=1), 1))[:, None].astype(np.float32)
    return scaled


def suspicious(probabilities: Floats, labels: Integers) -> Suspicion:
    """The rows whose labels are probably wrong.

    Confident learning says how many there are: what stands beside the diagonal of the confident joint. So many rows are
    given, those with the lowest probability of their own label, as far as the probe prefers another.
    """
    joint = confident_joint(probabilities, labels)
    estimated = round(float(joint.sum() - np.trace(joint)))
    own = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(own, kind="stable")
    return Suspicion(order[probabilities.argmax(axis=1)[order] != labels[order]][:estimated], estimated)
