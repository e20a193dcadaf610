"""What each resize policy cuts away, stretches or pads, and which policy suits a data set best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.features import FrozenBackbone, Told
from visionadapt.auditing.probe import ProbeRows
from visionadapt.auditing.rows import UsableRows
from visionadapt.core.records import Manifest
from visionadapt.images import ResizeAdapter

POLICIES = ("crop", "squash", "letterbox")
_FEWEST = 50


class ResizeEffect(NamedTuple):
    """What resizing does to an image, or the mean over several.

    Attributes:
        cut: share of the image that is cut away, in [0, 1].
        padded: share of the output that is padding, in [0, 1].
        stretched: how much more one side is scaled than the other: 0.5 for 1.5 times as much, 0 for equally.
        enlarged: scale of the side that is scaled more; below 1 the image shrinks.
    """

    cut: float = 0.0
    padded: float = 0.0
    stretched: float = 0.0
    enlarged: float = 1.0

    def describe(self, policy: str) -> str:
        """Describe in words what matters under a policy."""
        if policy == "crop":
            return f"crop cuts {100 * self.cut:.0f} % of an image away"
        if policy == "squash":
            return f"squash stretches one side {1 + self.stretched:.2f} times as much as the other"
        return f"letterbox pads {100 * self.padded:.0f} % of the output"


def effect(resize: ResizeAdapter, height: int, width: int) -> ResizeEffect:
    """Compute the effect on an image of `height` × `width` pixels from its placement in the output."""
    out_height, out_width = resize.height_width
    whole = resize.placement(height, width)
    seen = _overlap(whole.top, whole.height, out_height) * _overlap(whole.left, whole.width, out_width)
    vertical, horizontal = whole.height / height, whole.width / width
    return ResizeEffect(
        cut=1 - seen / (whole.height * whole.width),
        padded=1 - seen / (out_height * out_width),
        stretched=max(vertical, horizontal) / min(vertical, horizontal) - 1,
        enlarged=max(vertical, horizontal),
    )


def mean_effect(resize: ResizeAdapter, sizes: Sequence[tuple[int, int]]) -> ResizeEffect:
    """Average the effect over images of some (height, width); no effect where there are none."""
    counts = Counter(sizes)
    if not counts:
        return ResizeEffect()
    effects = [effect(resize, *size) for size in counts]
    return ResizeEffect(*np.average(effects, axis=0, weights=list(counts.values())).tolist())


def _overlap(start: int, length: int, side: int) -> int:
    return max(min(start + length, side) - max(start, 0), 0)


@dataclass(frozen=True)
class ResizeComparison:
    """The effect of every policy, and the recommended one.

    Attributes:
        effects: mean effect by policy, then by class; "" stands for all images.
        accuracy: accuracy of a linear probe, out of fold, by policy; empty where it was not measured.
        recommended: name of a policy.
        reason: why, as one line.
    """

    effects: Mapping[str, Mapping[str, ResizeEffect]]
    accuracy: Mapping[str, float]
    recommended: str
    reason: str


def compare_policies(
    rows: UsableRows,
    manifest: Manifest,
    features: npt.NDArray[np.float32],
    labelled: ProbeRows,
    frozen: FrozenBackbone,
    progress: Told,
) -> ResizeComparison:
    """Compare the policies by shape and, where there are enough labels, by a linear probe.

    Args:
        rows: N usable rows.
        manifest: audited manifest.
        features: pooled features float32 [N, D] under the backbone's own policy.
        labelled: rows that a probe can be trained on.
        frozen: backbone for the features under the other policies.
        progress: opens a progress display.
    """
    # 1) shapes alone
    own = frozen.preparation().resize
    usual: str = own.policy if own is not None else "crop"
    effects = {policy: _effects(rows, manifest.classes, _resize(frozen, policy)) for policy in POLICIES}
    overall = {policy: by_class[""] for policy, by_class in effects.items()}
    # 2) a probe on a sample
    sample = labelled.sample(rows.keys)
    if len(sample.rows) < _FEWEST or not sample.can_learn:
        return ResizeComparison(effects, {}, *recommend_by_shape(overall, usual))
    correct = {usual: sample.correct(features[sample.rows])}
    for policy in POLICIES:
        if policy != usual:
            correct[policy] = sample.correct(_features(rows, manifest, sample, frozen, policy, progress))
    accuracy = {policy: float(correct[policy].mean()) for policy in POLICIES}
    return ResizeComparison(effects, accuracy, *recommend_by_accuracy(correct, usual, overall))


def _resize(frozen: FrozenBackbone, policy: str) -> ResizeAdapter:
    return frozen.preparation(policy).resize or ResizeAdapter(frozen.side)


def _effects(rows: UsableRows, classes: Sequence[str], resize: ResizeAdapter) -> Mapping[str, ResizeEffect]:
    return {name: mean_effect(resize, list(_sizes(rows, name))) for name in ("", *classes)}


def _sizes(rows: UsableRows, name: str) -> Iterator[tuple[int, int]]:
    """Height and width of the images of a class; of all images for ""."""
    for file, labels in zip(rows.files, rows.labels, strict=True):
        if not name or name in labels:
            yield file.height, file.width


def _features(
    rows: UsableRows, manifest: Manifest, sample: ProbeRows, frozen: FrozenBackbone, policy: str, progress: Told
) -> npt.NDArray[np.float32]:
    findings = [rows.files[row].finding for row in sample.rows]
    selected = manifest.select(finding.index for finding in findings)
    with progress(f"features with {policy}") as done:
        settled = [replace(finding, index=index) for index, finding in enumerate(findings)]
        return frozen.features(selected, settled, policy, done)


def recommend_by_accuracy(
    correct: Mapping[str, npt.NDArray[np.bool_]], own: str, effects: Mapping[str, ResizeEffect]
) -> tuple[str, str]:
    """Recommend a policy, with the reason, by a linear probe's out-of-fold accuracy on the same N images.

    The backbone's own policy stays unless another is better by more than two standard errors of the difference.

    Args:
        correct: whether each image is classified correctly, bool [N], by policy.
        own: the backbone's own policy.
        effects: mean effect by policy.
    """
    best = own
    for policy, hits in correct.items():
        gain = hits.astype(np.float64) - correct[own]
        error = gain.std() / max(len(gain), 1) ** 0.5
        if gain.mean() > 2 * error and hits.mean() > correct[best].mean():
            best = policy
    accuracies = ", ".join(f"{policy} {100 * hits.mean():.1f} %" for policy, hits in correct.items())
    verdict = "no other is better" if best == own else "better"
    return best, (
        f"{verdict} than the backbone's own policy by more than chance; accuracy of a linear probe on "
        f"{len(correct[own]):,} held-out images: {accuracies}; {effects[best].describe(best)}"
    )


def recommend_by_shape(effects: Mapping[str, ResizeEffect], own: str) -> tuple[str, str]:
    """Recommend a policy, with the reason, from the shapes of the images only.

    `squash` and `letterbox` lose nothing beyond what the backbone's own policy cuts off a square image; `squash` is
    taken up to a mean stretch of 0.5.
    """
    if effects["crop"].cut < 1 / 3:
        best = "crop" if own != "squash" else own
    else:
        best = "squash" if effects["squash"].stretched <= 0.5 else "letterbox"
    return best, f"from the shapes of the images only; {effects[best].describe(best)}"
