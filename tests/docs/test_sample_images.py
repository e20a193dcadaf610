"""The committed sample pictures: what is in them, that each class has the same formats, and that drawing repeats."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageOps

from visionadapt.metrics.intervals import share

ROOT = Path(__file__).parents[2] / "sample_images"
TRAIN, VAL = ROOT / "train", ROOT / "val"
CLASSES = ("butterfly", "fish", "guitar", "jug", "mug", "perch")
ORIENTATION = 0x0112


def describe(path: Path) -> tuple[str, str | None, str, tuple[int, int], int, int]:
    """Name, format, mode, stored size, frames and EXIF orientation of a picture that loads completely."""
    with Image.open(path) as image:
        image.load()
        frames = getattr(image, "n_frames", 1)
        return path.name, image.format, image.mode, image.size, frames, image.getexif().get(ORIENTATION, 1)


@pytest.fixture(scope="module")
def described() -> dict[str, list[tuple[str, str | None, str, tuple[int, int], int, int]]]:
    return {name: [describe(path) for path in sorted((TRAIN / name).iterdir())] for name in CLASSES}


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import draw

    return draw


def test_the_folders_are_the_six_classes() -> None:
    for part in (TRAIN, VAL):
        assert {path.name for path in part.iterdir()} == set(CLASSES)


def test_there_are_enough_to_validate_with() -> None:
    """With 0.8 of them right, the 95 % interval is at most 7.5 points to either side."""
    counts = [len(list((VAL / name).iterdir())) for name in CLASSES]
    assert len(set(counts)) == 1
    low, high = share(round(0.8 * sum(counts)), sum(counts))
    assert high - low <= 0.15


def test_every_class_has_the_same_files(described: dict[str, list[tuple[object, ...]]]) -> None:
    assert len(described["fish"]) == 20
    assert all(files == described["fish"] for files in described.values())


def test_a_class_holds_every_kind_of_picture(described: dict[str, list[tuple[object, ...]]]) -> None:
    _, formats, modes, sizes, frames, orientations = zip(*described["fish"], strict=True)
    assert set(formats) == {"JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"}
    assert set(modes) == {"RGB", "L", "LA", "RGBA", "P", "CMYK", "I;16"}
    assert {(300, 300), (400, 400), (320, 480), (480, 320), (720, 270), (96, 80)} <= set(sizes)
    assert Counter(frames) == {1: 19, 3: 1}
    assert Counter(orientations) == {1: 16, 2: 1, 3: 1, 6: 1, 8: 1}


def test_the_set_is_small_and_holds_no_picture_twice() -> None:
    contents = [path.read_bytes() for name in CLASSES for part in (TRAIN, VAL) for path in (part / name).iterdir()]
    assert sum(map(len, contents)) <= 3_000_000
    assert len(set(contents)) == 240


@pytest.mark.parametrize("name", CLASSES)
def test_transparent_pictures_have_clear_and_solid_parts(name: str) -> None:
    for file in ("transparent.png", "grey_transparent.png"):
        with Image.open(TRAIN / name / file) as image:
            alpha = np.asarray(image.getchannel("A"))
        assert (alpha == 0).mean() > 0.2
        assert (alpha == 255).mean() > 0.05


@pytest.mark.parametrize("name", CLASSES)
def test_16_bit_pictures_use_more_than_8_bits(name: str) -> None:
    with Image.open(TRAIN / name / "grey_16_bit.png") as image:
        levels = np.unique(np.asarray(image))
    assert levels.max() > 2**13
    assert np.count_nonzero(levels % 257) > 50


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_turned_pictures_are_upright_once_the_orientation_is_applied(
    draw: ModuleType, tmp_path: Path, orientation: int
) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)).resize((80, 60))
    draw.turned_jpeg(orientation)(upright, tmp_path / "turned.jpg")
    with Image.open(tmp_path / "turned.jpg") as stored:
        shown = ImageOps.exif_transpose(stored)
    assert shown.size == upright.size
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 5


def test_a_picture_is_drawn_alike_each_time(draw: ModuleType, tmp_path: Path) -> None:
    carriers = {carrier.name: carrier for carrier in draw.CARRIERS}
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        look = draw.make_looks(20, Random(1))[0]
        draw.draw_one(folder, carriers["small.png"], draw.SHAPES["fish"], look, Random(2))
    assert (tmp_path / "first/small.png").read_bytes() == (tmp_path / "second/small.png").read_bytes()
