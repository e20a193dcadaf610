"""Digests and perceptual hashes, against bits worked out by hand and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.auditing.fingerprints import difference_hash, is_blank, pixel_digest, thumbnail

from ..images.samples import textured


def pixels_of(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def bits(luma: torch.Tensor) -> np.ndarray:
    return np.unpackbits(difference_hash(luma))


def test_a_ramp_sets_the_bits_of_its_direction() -> None:
    ramp = torch.arange(32.0).expand(32, 32)
    assert bits(ramp).tolist() == [1] * 64 + [0] * 64
    assert bits(ramp.T).tolist() == [0] * 64 + [1] * 64
    assert bits(-ramp).tolist() == [0] * 128
    assert bits(ramp / 8).tolist() == [0] * 128


def test_luma_is_that_of_bt_601() -> None:
    colours = {(255, 0, 0): 76.245, (0, 255, 0): 149.685, (0, 0, 255): 29.07, (255, 255, 255): 255.0}
    for colour, luma in colours.items():
        image = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 40, 50)
        assert thumbnail(image).mean().item() == pytest.approx(luma, abs=1e-3)
        assert is_blank(thumbnail(image))


@given(st.integers(0, 10_000), st.floats(0.6, 1.0), st.floats(0, 40))
def test_brightness_and_contrast_change_hardly_a_bit(seed: int, contrast: float, brightness: float) -> None:
    luma = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (32, 32)).astype(np.float32))
    assert (bits(luma) != bits(luma * contrast + brightness)).sum() <= 8


@pytest.mark.slow
def test_unrelated_pictures_differ_in_half_of_the_bits_and_a_crop_in_few() -> None:
    hashes = [bits(thumbnail(pixels_of(textured(120, 100, seed)))) for seed in range(40)]
    differing = [(first != second).sum() for place, first in enumerate(hashes) for second in hashes[:place]]
    assert 50 < np.mean(differing) < 78
    for seed in range(40):
        cropped = bits(thumbnail(pixels_of(textured(120, 100, seed)[2:-3, 2:-2])))
        assert (cropped != hashes[seed]).sum() <= 24


def test_equal_digests_mean_equal_pixels() -> None:
    image = pixels_of(textured(30, 40, 1))
    other = image.clone()
    other[1, 3, 4] ^= 1
    assert pixel_digest(image) == pixel_digest(image.contiguous()) == pixel_digest(image.clone())
    assert len({pixel_digest(part) for part in (image, other, image.mT, image[:, :, :30])}) == 4
    assert not is_blank(thumbnail(image))
