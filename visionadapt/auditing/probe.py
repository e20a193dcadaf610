"""A linear probe on frozen features, trained and applied in folds: it never sees the row that it classifies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from visionadapt.auditing.rows import UsableRows
from visionadapt.core.naming import stable_hash
from visionadapt.training.logistic_regression import fit_logistic_regression

FOLDS = 5
SAMPLE = 1000
"""Number of images at most on which the resize policies are compared."""

_DECAY = 3e-4

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ProbeRows:
    """Rows that a probe can be trained on: those with one label, of a class that every fold can have.

    Attributes:
        rows: indices among the usable rows, int64 [M].
        labels: class indices, int64 [M].
        folds: int64 [M].
        classes: number of all classes.
    """

    rows: Integers
    labels: Integers
    folds: Integers
    classes: int

    @classmethod
    def of(cls, rows: UsableRows, classes: Sequence[str], cluster_of: Callable[[int], int]) -> ProbeRows:
        """Select the rows and assign the folds; classes with fewer images than folds, without copies, are left out.

        `cluster_of` returns the cluster of a row: copies of one image have the same.
        """
        index = {name: place for place, name in enumerate(classes)}
        label = {row: index[labels[0]] for row, labels in enumerate(rows.labels) if len(labels) == 1}
        images: dict[int, set[int]] = {}
        for row, own in label.items():
            images.setdefault(own, set()).add(cluster_of(row))
        chosen = [row for row, own in label.items() if len(images[own]) >= FOLDS]
        labels = np.array([label[row] for row in chosen], np.int64)
        folds = assign_folds(labels, [cluster_of(row) for row in chosen], [rows.keys[row] for row in chosen])
        return cls(np.array(chosen, np.int64), labels, folds, len(classes))

    @property
    def can_learn(self) -> bool:
        """Whether there are at least two classes."""
        return len(np.unique(self.labels)) > 1

    def probabilities(self, features: Floats) -> Floats:
        """Out-of-fold probabilities float32 [M, C] on features [M, D]."""
        return out_of_fold(features, self.labels, self.folds, self.classes)

    def correct(self, features: Floats) -> npt.NDArray[np.bool_]:
        """Whether each row is classified correctly out of fold, bool [M], on features [M, D]."""
        correct: npt.NDArray[np.bool_] = self.probabilities(features).argmax(axis=1) == self.labels
        return correct

    def sample(self, keys: Sequence[str]) -> ProbeRows:
        """Select at most `SAMPLE` rows by the hash of their keys; `keys` are those of all usable rows."""
        ranked = sorted(range(len(self.rows)), key=lambda place: stable_hash("tried", keys[int(self.rows[place])]))
        places = np.sort(np.array(ranked[:SAMPLE], np.int64))
        return ProbeRows(self.rows[places], self.labels[places], self.folds[places], self.classes)


def assign_folds(labels: Integers, clusters: Sequence[int], keys: Sequence[str], folds: int = FOLDS) -> Integers:
    """Assign each row to a fold, int64 [N], so that copies share one and each class is spread evenly.

    The largest clusters come first, then in the order of their first row's hash; each goes where its class has the
    fewest rows so far.
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
    """Compute the class probabilities of each row by a probe trained on the other folds: float32 [N, C].

    The probe is multinomial logistic regression with an L2 penalty on standardised features, fitted by L-BFGS.

    Args:
        features: float32 [N, D].
        labels: class indices int64 [N].
        folds: fold of each row, int64 [N].
        classes: C.
    """
    result = np.zeros((len(features), classes), np.float32)
    for fold in np.unique(folds):
        held = folds == fold
        train = torch.from_numpy(features[~held])
        deviation, mean = torch.std_mean(train, dim=0, unbiased=False)
        scale = 1 / ((deviation + 1e-6) * features.shape[1] ** 0.5)
        own = torch.from_numpy(labels[~held])
        weight, bias = fit_logistic_regression((train - mean) * scale, own, classes, _DECAY)
        logits = (torch.from_numpy(features[held]) - mean) * scale @ weight + bias
        result[held] = logits.softmax(dim=1).numpy()
    return result
