"""What each way of making pictures square would cut away, stretch or fill up, and which of them serves best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionadapt.images import ResizeAdapter


@dataclass(frozen=True)
class Effect:
    """What a policy does to some pictures, on average: shares in [0, 1], and how far one side is stretched.

    Attributes:
        cut: share of the picture that is cut away.
        filled: share of the output that is not picture.
        stretched: 0.5 where one side is stretched 1.5 times as far as the other.
    """

    cut: float
    filled: float
    stretched: float


@dataclass(frozen=True)
class Policies:
    """Every policy's effect, and the recommended one.

    Attributes:
        effects: by policy, then by class; the empty name stands for all pictures.
        accuracy: by policy, what a linear probe gets right out of fold; empty where that was not tried.
        recommended: name of a policy.
        reason: why, as one line.
    """

    effects: Mapping[str, Mapping[str, Effect]]
    accuracy: Mapping[str, float]
    recommended: str
    reason: str


def effect(resize: ResizeAdapter, sizes: Sequence[tuple[int, int]]) -> Effect:
    """The mean effect on pictures of some (height, width); zeros where there are none."""
    counts = Counter(sizes)
    if not counts:
        return Effect(0.0, 0.0, 0.0)
    values = np.array([_on_one(resize, *size) for size in counts])
    cut, filled, stretched = np.average(values, axis=0, weights=list(counts.values())).tolist()
    return Effect(cut, filled, stretched)


def _on_one(resize: ResizeAdapter, height: int, width: int) -> tuple[float, float, float]:
    """Cut, filled and stretched of one picture, from where it lies in the output."""
    whole = resize.placement(height, width)
    rows = _inside(whole.top, whole.height, resize.height_width[0])
    columns = _inside(whole.left, whole.width, resize.height_width[1])
    seen = rows * columns
    vertical, horizontal = whole.height / height, whole.width / width
    return (
        1 - seen / (whole.height * whole.width),
        1 - seen / (resize.height_width[0] * resize.height_width[1]),
        max(vertical, horizontal) / min(vertical, horizontal) - 1,
    )


def _inside(start: int, length: int, side: int) -> int:
    return max(min(start + length, side) - max(start, 0), 0)


def recommend_by_accuracy(
    right: Mapping[str, npt.NDArray[np.bool_]], own: str, effects: Mapping[str, Effect]
) -> tuple[str, str]:
    """Policy and reason from what a linear probe gets right out of fold, bool [N] a policy, on the same pictures.

    The backbone's own way stays unless another is better by more than two standard errors of the difference.
    """
    best = own
    for name, hits in right.items():
        gain = hits.astype(np.float64) - right[own]
        error = gain.std() / max(len(gain), 1) ** 0.5
        if gain.mean() > 2 * error and hits.mean() > right[best].mean():
            best = name
    shares = ", ".join(f"{name} {hits.mean():.1%}" for name, hits in right.items())
    why = "the backbone's own way, and no other is better" if best == own else "better than the backbone's own way"
    return best, (
        f"{why} by more than chance: of {len(right[own]):,} pictures that it did not see, a linear probe gets right "
        f"{shares}; {_told(best, effects[best])}"
    )


def recommend_by_shape(effects: Mapping[str, Effect], own: str) -> tuple[str, str]:
    """Policy and reason from the shapes alone, where there are no labels to learn from.

    Nothing beyond what the backbone's own way cuts off a square picture is lost by `squash` and `letterbox`; the first
    is taken up to a mean stretch of a half.
    """
    if effects["crop"].cut < 1 / 3:
        best = "crop" if own != "squash" else own
    else:
        best = "squash" if effects["squash"].stretched <= 0.5 else "letterbox"
    return best, f"by the pictures' shapes alone: {_told(best, effects[best])}"


def _told(policy: str, told: Effect) -> str:
    if policy == "crop":
        return f"crop cuts {told.cut:.0%} of a picture away"
    if policy == "squash":
        return f"squash stretches one side {1 + told.stretched:.2f} times as far as the other"
    return f"letterbox fills {told.filled:.0%} of the output"
