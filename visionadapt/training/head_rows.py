"""The rows that a head is solved on: pooled features of training images, collected batch by batch, and their folds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.system import distributed
from visionadapt.tasks import Task
from visionadapt.training.folds import FOLDS, assign_folds
from visionadapt.training.solved_head import LabelledFeatures

MOST_BYTES = 1 << 30
"""Maximum size of the collected features; of more rows, evenly spaced ones are collected."""


class HeadRows:
    """Collected features of training images. N rows of D features, V views of each.

    Args:
        manifest: the N usable rows.
        labels: their labels, as `Task.targets` returns them.
        size: D.
        views: V.
    """

    def __init__(self, manifest: Manifest, labels: Tensor, size: int, views: int = 1) -> None:
        self.manifest, self.views = manifest, views
        self._every = max(-(-len(labels) * views * size * 4 // MOST_BYTES), 1)
        self._labels = labels[:: self._every]
        self._kept: list[tuple[int, int, Tensor]] = []

    def add(self, features: Tensor, start: int, view: int = 0) -> None:
        """Add features [B, D] of a view of consecutive rows, from position `start`."""
        self._kept.append((view, start, features[-start % self._every :: self._every].float().clone()))

    def features(self) -> Tensor:
        """Return what all processes have collected: float32 [V·N, D], view by view."""
        kept = [kept for part in distributed.gathered(self._kept) for kept in part]
        return torch.cat([rows for _, _, rows in sorted(kept, key=lambda kept: kept[:2])])

    def labelled(self, features: Tensor, task: Task) -> LabelledFeatures:
        """Add targets, weights and folds to the collected features; all views of an image are in one fold."""
        targets = task.soft_targets(self._labels, len(self.manifest.classes))
        folds = torch.from_numpy(self._folds()).repeat(self.views)
        weights = None if targets.weights is None else targets.weights.repeat(self.views)
        return LabelledFeatures(
            features, targets.targets.repeat(self.views, 1), folds, targets.softmax, weights, targets.positive
        )

    def groups(self) -> list[tuple[str, str]]:
        """Return what each collected row of the manifest must stay together with: its group, or itself."""
        return [self._group(row) for row in range(0, len(self.manifest), self._every)]

    def _folds(self) -> np.typing.NDArray[np.int64]:
        """Return the fold of each row, −1 for those of a class with a single group, which no fold could do without."""
        rows = range(0, len(self.manifest), self._every)
        keys = [self.manifest.key(row) for row in rows]
        groups = self.groups()
        labels = np.array([self.manifest.label(row) for row in rows], np.int64)
        holders: dict[int, set[tuple[str, str]]] = {}
        for label, group in zip(labels.tolist(), groups, strict=True):
            holders.setdefault(label, set()).add(group)
        folds = assign_folds(labels, groups, keys, FOLDS)
        alone = {group for own in holders.values() if len(own) == 1 for group in own}
        folds[[group in alone for group in groups]] = -1
        return folds

    def _group(self, row: int) -> tuple[str, str]:
        group = self.manifest.group(row)
        return ("row", self.manifest.key(row)) if group is None else ("group", group)
