"""Shifted, scaled and brightened copies correlate; other images do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visionadapt.auditing.alignment import correlation
from visionadapt.auditing.fingerprints import thumbnail

from ..images.samples import textured


def luma(array: np.ndarray) -> np.ndarray:
    return thumbnail(torch.from_numpy(array.copy()).permute(2, 0, 1)).round().byte().numpy()


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_correlates_where_it_lies(seed: int) -> None:
    whole = textured(160, 120, seed)
    cropped, other = whole[6:-3, 4:-5], textured(160, 120, seed + 100)
    found = correlation(
        np.stack([luma(whole), luma(cropped), luma(whole), luma(whole)]),
        np.stack([luma(cropped), luma(whole), luma(whole), luma(other)]),
    )
    assert found[:2].min() > 0.96
    assert found[2] == pytest.approx(1, abs=1e-5)
    assert found[3] < 0.9


def test_brightness_and_contrast_do_not_matter() -> None:
    dark = luma(textured(90, 90, 1)) // 2
    assert correlation(dark[None], (dark + 90)[None])[0] == pytest.approx(1, abs=1e-5)


def test_no_pair_gives_nothing_and_many_are_as_one() -> None:
    images = np.stack([luma(textured(40, 50, seed)) for seed in range(70)])
    assert correlation(images[:0], images[:0]).shape == (0,)
    together = correlation(images, images[::-1])
    assert together[65] == pytest.approx(correlation(images[65:66], images[4:5])[0], abs=1e-5)
