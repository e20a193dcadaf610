"""Augmentation depends only on the image and the seed."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from tests.images.samples import textured
from visionadapt.errors import SpecError, UsageError
from visionadapt.images import augmentation, seed_for

IMAGE = torch.from_numpy(textured(120, 160)).permute(2, 0, 1)


def pipelines() -> list[Any]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return [
        *["light", "strong", v2.Compose([v2.RandomResizedCrop(64), v2.ColorJitter(0.4, 0.4), v2.RandAugment()])],
        lambda pixels: pixels.roll(int(np.random.randint(100)) + random.randrange(100), -1),
        albumentations.Compose([albumentations.RandomCrop(50, 60), albumentations.ColorJitter(p=1.0)]),
        albumentations.GaussNoise(p=1.0),
    ]


@pytest.mark.parametrize("number", range(6))
def test_the_seed_alone_decides(number: int) -> None:
    augment = augmentation(pipelines()[number])
    before = IMAGE.clone()
    first = [augment(IMAGE, seed) for seed in range(40)]
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    second = [augment(IMAGE, seed) for seed in reversed(range(40))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[2])
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(IMAGE, before)
    assert len({(tuple(result.shape), result.numpy().tobytes()) for result in first}) > 15
    assert all(result.dtype == torch.uint8 and result.shape[0] == 3 for result in first)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    seed=st.integers(0, 2**63 - 1),
    preset=st.sampled_from(["none", "light", "strong"]),
)
def test_presets_take_images_of_any_size(height: int, width: int, seed: int, preset: str) -> None:
    pixels = torch.from_numpy(textured(height, width)).permute(2, 0, 1)
    result = augmentation(preset)(pixels, seed)
    assert result.dtype == torch.uint8 and result.shape[0] == 3 and result.numel() > 0


def test_none_changes_nothing() -> None:
    assert torch.equal(augmentation("none")(IMAGE, 3), IMAGE) and augmentation("none").is_none


def test_light_keeps_a_part_of_the_stated_area_and_mirrors_half() -> None:
    numbers = torch.arange(40_000).reshape(1, 200, 200)
    coded = torch.cat([numbers // 200 % 256, numbers % 200, numbers * 0]).to(torch.uint8)
    results = [augmentation("light")(coded, seed) for seed in range(300)]
    shares = [result.shape[1] * result.shape[2] / 40_000 for result in results]
    assert 0.66 < min(shares) < 0.75 and 0.95 < max(shares) <= 1
    mirrored = sum(bool(result[1, 0, 0] > result[1, 0, 1]) for result in results)
    assert 110 < mirrored < 190
    for result in results:
        rows, columns = result[0, :, 0].int(), result[1, 0].int().sort().values
        assert (rows.diff() == 1).all() and (columns.diff() == 1).all()


@pytest.mark.slow
def test_strong_is_made_on_a_small_image() -> None:
    large = torch.zeros(3, 2000, 3000, dtype=torch.uint8)
    assert all(min(augmentation("strong")(large, seed).shape[1:]) <= 448 for seed in range(20))


def test_seeds_are_stable_and_spread() -> None:
    """The first is BLAKE2b-64 of `0␀0␀a`, made with hashlib's command line twin b2sum -l 64, shifted right by one."""
    assert seed_for(0, 0, "a") == 9_196_027_511_977_055_662
    seeds = {seed_for(seed, view, key) for seed in range(5) for view in range(5) for key in ("a", "ä/b.jpg", "0")}
    assert len(seeds) == 75 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for(1, 11, "x") != seed_for(11, 1, "x")


@pytest.mark.parametrize("bad", ["heavy", 3, None])
def test_unknown_augmentations_are_refused(bad: Any) -> None:
    with pytest.raises(SpecError):
        augmentation(bad)


@pytest.mark.parametrize(
    ("pipeline", "returned"),
    [
        (v2.ToDtype(torch.float32), r"torch\.float32"),
        (lambda pixels: pixels[0], r"\(120, 160\)"),
        (lambda pixels: None, "NoneType"),
    ],
)
def test_a_pipeline_must_return_an_image(pipeline: Any, returned: str) -> None:
    with pytest.raises(UsageError, match=rf"uint8 .*{returned}"):
        augmentation(pipeline)(IMAGE, 1)
