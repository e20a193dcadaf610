"""What a linear probe thinks: of every label, and of every way of making pictures square."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.duplicates import Clusters, Rows
from visionadapt.auditing.features import FrozenBackbone, Told
from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.probe import FOLDS, assign_folds, out_of_fold, suspicious
from visionadapt.auditing.resizing import Effect, Policies, effect, recommend_by_accuracy, recommend_by_shape
from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest
from visionadapt.images import ResizeAdapter

POLICIES = ("crop", "squash", "letterbox")
TRIED = 1000
"""On so many pictures at most the resize policies are tried."""

_FEWEST = 50
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pupil:
    """The rows that a probe can learn from: those with one label, of classes that every fold can have.

    Attributes:
        rows: places among the usable rows, int64 [M].
        labels: class indices, int64 [M].
        folds: int64 [M].
        classes: how many classes there are in all.
    """

    rows: Integers
    labels: Integers
    folds: Integers
    classes: int

    @classmethod
    def of(cls, rows: Rows, classes: Sequence[str], clusters: Clusters) -> Pupil:
        """Choose the rows and deal them out; classes of fewer pictures than folds, copies not counted, are left out."""
        index = {name: place for place, name in enumerate(classes)}
        single = [row for row in range(len(rows)) if len(rows.labels[row]) == 1]
        label = {row: index[rows.labels[row][0]] for row in single}
        pictures: dict[int, set[int]] = {}
        for row in single:
            pictures.setdefault(label[row], set()).add(clusters.of(row))
        taken = [row for row in single if len(pictures[label[row]]) >= FOLDS]
        labels = np.array([label[row] for row in taken], np.int64)
        folds = assign_folds(labels, [clusters.of(row) for row in taken], [rows.keys[row] for row in taken])
        return cls(np.array(taken, np.int64), labels, folds, len(classes))

    @property
    def able(self) -> bool:
        """Whether there are two classes to tell apart."""
        return len(np.unique(self.labels)) > 1

    def hits(self, features: Floats) -> npt.NDArray[np.bool_]:
        """Which rows the probe gets right on features [M, D] without having seen them, bool [M]."""
        right: npt.NDArray[np.bool_] = self.probabilities(features).argmax(axis=1) == self.labels
        return right

    def probabilities(self, features: Floats) -> Floats:
        """Out-of-fold probabilities [M, C] on features [M, D]."""
        return out_of_fold(features, self.labels, self.folds, self.classes)

    def some(self, keys: Sequence[str]) -> tuple[Pupil, Integers]:
        """At most `TRIED` of the rows, by their keys' hash, and their places among the pupil's."""
        ranked = sorted(range(len(self.rows)), key=lambda place: stable_hash("tried", keys[int(self.rows[place])]))
        places = np.sort(np.array(ranked[:TRIED], np.int64))
        part = Pupil(self.rows[places], self.labels[places], self.folds[places], self.classes)
        return part, places


def label_findings(
    rows: Rows, classes: Sequence[str], pupil: Pupil, probabilities: Floats
) -> tuple[list[AuditFinding], int]:
    """Labels that are probably wrong, and how many confident learning estimates."""
    found = suspicious(probabilities, pupil.labels)
    told = []
    for place in found.rows.tolist():
        row, own = int(pupil.rows[place]), float(probabilities[place, pupil.labels[place]])
        likely = int(probabilities[place].argmax())
        detail = f"looks like {classes[likely]!r} ({probabilities[place, likely]:.0%}); its own label: {own:.1%}"
        index = rows.facts[row].finding.index
        told.append(AuditFinding("label_error", rows.keys[row], "", rows.label(row), detail, 1 - own, index))
    return told, found.estimated


def compare_policies(
    rows: Rows, manifest: Manifest, features: Floats, pupil: Pupil, frozen: FrozenBackbone, progress: Told
) -> Policies:
    """Each policy's effect on every class, and the one to take."""
    resizes = {name: _resize(frozen, name) for name in POLICIES}
    own = frozen.preparation().resize
    usual: str = own.policy if own is not None else "crop"
    effects = {name: _effects(rows, manifest.classes, resize) for name, resize in resizes.items()}
    overall = {name: by_class[""] for name, by_class in effects.items()}
    some, places = pupil.some(rows.keys)
    if len(places) < _FEWEST or not some.able:
        return Policies(effects, {}, *recommend_by_shape(overall, usual))
    right = {usual: some.hits(features[some.rows])}
    for name in POLICIES:
        if name != usual:
            right[name] = some.hits(_features(rows, manifest, some, frozen, name, progress))
    accuracy = {name: float(right[name].mean()) for name in POLICIES}
    return Policies(effects, accuracy, *recommend_by_accuracy(right, usual, overall))


def _features(
    rows: Rows, manifest: Manifest, some: Pupil, frozen: FrozenBackbone, policy: str, progress: Told
) -> Floats:
    findings = [rows.facts[row].finding for row in some.rows]
    part = manifest.select(finding.index for finding in findings)
    with progress(f"features with {policy}") as told:
        settled = [replace(finding, index=place) for place, finding in enumerate(findings)]
        return frozen.features(part, settled, policy, told)


def _resize(frozen: FrozenBackbone, policy: str) -> ResizeAdapter:
    resize = frozen.preparation(policy).resize
    return resize if resize is not None else ResizeAdapter(frozen.side)


def _effects(rows: Rows, classes: Sequence[str], resize: ResizeAdapter) -> Mapping[str, Effect]:
    return {name: effect(resize, list(_sizes(rows, name))) for name in ("", *classes)}


def _sizes(rows: Rows, name: str) -> Iterator[tuple[int, int]]:
    """Height and width of the pictures of a class; of all, where the name is empty."""
    for fact, labels in zip(rows.facts, rows.labels, strict=True):
        if not name or name in labels:
            yield fact.height, fact.width
