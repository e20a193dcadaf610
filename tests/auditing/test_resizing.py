"""What resizing does to images, in numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from visionadapt.auditing.resizing import ResizeEffect, effect, mean_effect, recommend_by_accuracy, recommend_by_shape
from visionadapt.images import ResizeAdapter


@pytest.mark.parametrize(
    ("policy", "size", "crop_pct", "expected"),
    [
        ("crop", (100, 200), 1.0, (0.5, 0.0, 0.0)),
        ("crop", (100, 100), 1.0, (0.0, 0.0, 0.0)),
        ("crop", (100, 100), 0.5, (0.75, 0.0, 0.0)),
        ("squash", (100, 200), 1.0, (0.0, 0.0, 1.0)),
        ("squash", (300, 200), 1.0, (0.0, 0.0, 0.5)),
        ("letterbox", (100, 200), 1.0, (0.0, 0.5, 0.0)),
        ("letterbox", (400, 100), 1.0, (0.0, 0.75, 0.0)),
    ],
)
def test_one_image(policy: str, size: tuple[int, int], crop_pct: float, expected: tuple[float, ...]) -> None:
    found = effect(ResizeAdapter(100, policy=policy, crop_pct=crop_pct), *size)  # type: ignore[arg-type]
    assert (found.cut, found.padded, found.stretched) == pytest.approx(expected, abs=1e-6)


def test_several_images_are_averaged() -> None:
    sizes = [(100, 200)] * 3 + [(100, 100)]
    assert mean_effect(ResizeAdapter(100, policy="crop"), sizes).cut == pytest.approx(3 / 8)
    assert mean_effect(ResizeAdapter(100, policy="letterbox"), sizes).padded == pytest.approx(3 / 8)
    assert mean_effect(ResizeAdapter(100), []) == ResizeEffect(0.0, 0.0, 0.0)


EFFECTS = {"crop": ResizeEffect(0.4, 0, 0), "squash": ResizeEffect(0, 0, 0.3), "letterbox": ResizeEffect(0, 0.25, 0)}


def test_the_backbones_own_policy_stays_unless_another_is_clearly_better() -> None:
    own = np.array([True, False] * 200)
    hardly, clearly = own.copy(), own.copy()
    hardly[1] = True
    clearly[1:80:2] = True
    policy, reason = recommend_by_accuracy({"crop": own, "squash": hardly, "letterbox": own}, "crop", EFFECTS)
    assert policy == "crop"
    assert "no other is better" in reason
    assert "crop cuts 40 % of an image away" in reason
    policy, reason = recommend_by_accuracy({"crop": own, "squash": hardly, "letterbox": clearly}, "crop", EFFECTS)
    assert policy == "letterbox"
    assert "letterbox 60.0 %" in reason


@pytest.mark.parametrize(
    ("cut", "stretched", "own", "expected"),
    [
        (0.2, 0.1, "crop", "crop"),
        (0.2, 0.1, "squash", "squash"),
        (0.4, 0.3, "crop", "squash"),
        (0.6, 1.2, "crop", "letterbox"),
    ],
)
def test_without_labels_the_shapes_decide(cut: float, stretched: float, own: str, expected: str) -> None:
    effects = {
        "crop": ResizeEffect(cut, 0, 0),
        "squash": ResizeEffect(0, 0, stretched),
        "letterbox": ResizeEffect(0, 0.5, 0),
    }
    assert recommend_by_shape(effects, own)[0] == expected
