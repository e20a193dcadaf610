"""The fine detail of shifted, scaled and brightened copies agrees; that of other images does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visionadapt.auditing.alignment import agreement
from visionadapt.auditing.fingerprints import thumbnail

from ..images.samples import textured


def luma(array: np.ndarray) -> np.ndarray:
    return thumbnail(torch.from_numpy(array.copy()).permute(2, 0, 1)).round().byte().numpy()


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_agrees_where_it_lies(seed: int) -> None:
    whole = textured(160, 120, seed)
    cropped, other = whole[6:-3, 4:-5], textured(160, 120, seed + 100)
    found = agreement(
        np.stack([luma(whole), luma(cropped), luma(whole), luma(whole)]),
        np.stack([luma(cropped), luma(whole), luma(whole), luma(other)]),
    )
    assert found[:2].min() > 0.93
    assert found[2] == pytest.approx(1, abs=3e-3)
    assert found[3] < 0.6


def test_brightness_and_contrast_do_not_matter() -> None:
    dark = luma(textured(90, 90, 1)) // 2
    assert agreement(dark[None], (dark + 90)[None])[0] == pytest.approx(1, abs=3e-3)


def test_no_pair_gives_nothing_and_many_are_as_one() -> None:
    images = np.stack([luma(textured(40, 50, seed)) for seed in range(70)])
    assert agreement(images[:0], images[:0]).shape == (0,)
    together = agreement(images, images[::-1])
    assert together[65] == pytest.approx(agreement(images[65:66], images[4:5])[0], abs=1e-5)


def test_the_same_layout_with_other_detail_does_not_agree() -> None:
    generator = np.random.default_rng(0)
    layout = np.kron(generator.uniform(40, 200, (4, 4)), np.ones((16, 16)))
    first, second = (np.clip(layout + generator.normal(0, 25, (64, 64)), 0, 255) for _ in range(2))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.7
    assert agreement(first.astype(np.uint8)[None], second.astype(np.uint8)[None])[0] < 0.6


def test_images_without_any_detail_do_not_agree() -> None:
    flat = np.full((1, 64, 64), 90, np.uint8)
    assert agreement(flat, flat)[0] == pytest.approx(0, abs=1e-2)
