"""A linear probe: a head solved on the last frozen features, unsmoothed, applied to rows it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from visionadapt.auditing.rows import UsableRows
from visionadapt.core.naming import stable_hash
from visionadapt.tasks import plain_task
from visionadapt.training.folds import FOLDS, assign_folds
from visionadapt.training.solved_head import LabelledFeatures, out_of_fold_logits

SAMPLE = 1000
"""Number of images at most on which the resize policies are compared."""

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


def out_of_fold(features: Floats, labels: Integers, folds: Integers, classes: int) -> Floats:
    """Compute the class probabilities of each row by a solved head that has not seen its fold: float32 [N, C].

    Args:
        features: float32 [N, D].
        labels: class indices int64 [N].
        folds: fold of each row, int64 [N].
        classes: C.
    """
    targets = plain_task("single").soft_targets(torch.from_numpy(labels), classes).targets
    rows = LabelledFeatures(torch.from_numpy(features), targets, torch.from_numpy(folds))
    probabilities: Floats = out_of_fold_logits(rows).softmax(dim=1).numpy()
    return probabilities
