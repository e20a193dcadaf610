"""Measures of quality against values worked out by hand, and planted blurred, dark, light and odd images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from visionadapt.auditing.quality import quality

from ..images.samples import textured
from .scenes import audited, clean_folder, found_pairs


def test_measures_of_a_board_of_two_levels() -> None:
    board = torch.from_numpy((np.indices((20, 20)).sum(axis=0) % 2 * 200).astype(np.float32))
    seen = quality(board)
    assert seen.entropy == pytest.approx(1)
    assert (seen.darkest, seen.brightest) == (0, pytest.approx(200 / 255))
    assert seen.sharpness == pytest.approx(64)  # the Laplacian is ±800, four times 200; the luma's deviation is 100


def test_percentiles_and_entropy_of_a_ramp() -> None:
    seen = quality(torch.arange(256.0).repeat(4, 1))
    assert seen.entropy == pytest.approx(8)
    assert (seen.darkest * 255, seen.brightest * 255) == (pytest.approx(12), pytest.approx(253))
    assert seen.sharpness == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (2, 2), (3, 3)])
def test_small_images_have_a_measure(shape: tuple[int, int]) -> None:
    assert np.isfinite(quality(torch.full(shape, 7.0))).all()


@pytest.mark.slow
def test_planted_images_are_noted(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "data", splits=("",), count=12)
    red = folder / "red"
    photo = Image.fromarray(textured(120, 110, 5))
    photo.filter(ImageFilter.GaussianBlur(5)).save(red / "blurred.png")
    ImageEnhance.Brightness(photo).enhance(0.2).save(red / "dark.png")
    Image.fromarray(np.where(np.asarray(photo) > np.median(photo), 255, 246).astype(np.uint8)).save(red / "light.png")
    drawing = np.zeros((100, 105, 3), np.uint8)
    drawing[30:60, 20:50] = 255
    Image.fromarray(drawing).save(red / "drawing.png")
    Image.fromarray(textured(900, 800, 6)).save(red / "large.png")
    audit = audited(folder)
    noted = {"blurred": "blurred", "dark": "dark", "light": "light", "low_information": "drawing", "odd_size": "large"}
    for kind, name in noted.items():
        assert (f"red/{name}.png",) in found_pairs(audit, kind), kind
    assert found_pairs(audit, "dark") == [("red/dark.png",)]
    assert found_pairs(audit, "odd_size") == [("red/large.png",)]
    assert audit.errors == 0


@pytest.mark.slow
def test_what_most_images_have_is_not_noted(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(6):
            dark = textured(80, 90, number + 10 * len(label) + ord(label)) // 5
            Image.fromarray(dark).save(tmp_path / label / f"{number}.png")
    assert "dark" not in audited(tmp_path).counts
