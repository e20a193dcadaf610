"""Labels worth checking, by confident learning on the probabilities of a linear probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.findings import AuditFinding
from visionadapt.auditing.probe import ProbeRows
from visionadapt.auditing.rows import UsableRows

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class Suspicion(NamedTuple):
    """Rows whose labels are worth checking, the least probable label first.

    Attributes:
        rows: int64 [S].
        estimated: estimated number of wrong labels among all rows.
    """

    rows: Integers
    estimated: int


def label_findings(
    rows: UsableRows, classes: Sequence[str], labelled: ProbeRows, probabilities: Floats
) -> tuple[list[AuditFinding], int]:
    """Report labels worth checking; return the findings and the estimated number of wrong labels.

    Args:
        rows: usable rows.
        classes: C class names.
        labelled: the M rows that the probe was trained on.
        probabilities: its out-of-fold probabilities float32 [M, C].
    """
    found = suspicious(probabilities, labelled.labels)
    findings = []
    for place in found.rows.tolist():
        all_classes, label = probabilities[place], int(labelled.labels[place])
        better = int((all_classes > all_classes[label]).sum())
        detail = (
            f"a linear probe on the other images prefers {classes[int(all_classes.argmax())]!r}; "
            f"its own label has rank {better + 1} of {len(classes)}"
        )
        loss = -math.log(max(float(all_classes[label]), 1e-12))
        findings.append(rows.finding("label_error", int(labelled.rows[place]), detail, loss))
    return findings, found.estimated


def confident_joint(probabilities: Floats, labels: Integers) -> Floats:
    """Estimate how many rows are labelled i and belong to class j: float32 [C, C].

    A row counts as j where its probability of j reaches the mean that rows labelled j have for their own label, and is
    the highest that does so. Each matrix row is then scaled to the number of rows labelled i. (C. G. Northcutt,
    L. Jiang, I. L. Chuang, "Confident Learning", JAIR 70, 2021, equations 1 to 3.)

    Args:
        probabilities: out-of-fold probabilities float32 [N, C].
        labels: class indices int64 [N].
    """
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    sizes = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, minlength=classes) / np.maximum(sizes, 1)
    confident = np.where((probabilities >= thresholds) & (sizes > 0), probabilities, -1.0)
    likely = confident.argmax(axis=1)
    counted = confident[rows, likely] >= 0
    joint = np.zeros((classes, classes), np.float32)
    np.add.at(joint, (labels[counted], likely[counted]), 1)
    scaled: Floats = joint * (sizes / np.maximum(joint.sum(axis=1), 1))[:, None].astype(np.float32)
    return scaled


def suspicious(probabilities: Floats, labels: Integers) -> Suspicion:
    """Select the rows whose labels are worth checking.

    Confident learning estimates their number: the sum off the diagonal of the confident joint. At most that many rows
    are selected, those with the lowest probability of their own label, as long as the probe prefers another.

    Args:
        probabilities: out-of-fold probabilities float32 [N, C].
        labels: class indices int64 [N].
    """
    joint = confident_joint(probabilities, labels)
    estimated = round(float(joint.sum() - np.trace(joint)))
    own = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(own, kind="stable")
    return Suspicion(order[probabilities.argmax(axis=1)[order] != labels[order]][:estimated], estimated)
