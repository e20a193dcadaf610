"""EXIF orientation 1–8 against images that are stored as the standard (CIPA DC-008, tag 274) says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.images.samples import AVIF, Array, file_of, smooth, textured
from visionadapt.images import DecodeAdapter

STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def stored_file(upright: Array, orientation: int, kind: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(STORED.get(orientation, STORED[1])(upright))
    return file_of(Image.fromarray(stored), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", *(["AVIF"] if AVIF else [])])
def test_every_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    upright = smooth(20, 33) if kind in ("JPEG", "AVIF") else textured(20, 33)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    decoded = DecodeAdapter().decode(stored_file(upright, orientation, kind, **options), "x")
    difference = np.abs(decoded.pixels.permute(1, 2, 0).numpy().astype(int) - upright).max()
    assert difference <= (12 if kind in ("JPEG", "AVIF") else 0)
    turned = f"turned upright (EXIF orientation {orientation})"
    assert decoded.repairs == (() if orientation == 1 else (turned,))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16"])
def test_other_modes_are_turned_too(orientation: int, mode: str) -> None:
    upright = textured(20, 33)[:, :, 0]
    stored = np.ascontiguousarray(STORED[orientation](upright))
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(stored.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    data = file_of(image, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    assert np.abs(DecodeAdapter()(data)[0].numpy().astype(int) - upright).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientations_are_ignored(orientation: int) -> None:
    upright = textured(20, 33)
    decoded = DecodeAdapter().decode(stored_file(upright, orientation, "PNG"), "x")
    assert np.array_equal(decoded.pixels.permute(1, 2, 0).numpy(), upright) and decoded.repairs == ()


def test_pil_images_are_turned_upright() -> None:
    image = Image.fromarray(np.ascontiguousarray(STORED[6](textured(20, 33))))
    image.getexif()[274] = 6
    assert np.array_equal(np.asarray(DecodeAdapter()(image)), textured(20, 33))


def test_broken_exif_is_ignored_without_a_warning() -> None:
    data = file_of(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\x99" * 9)
    assert DecodeAdapter()(data).shape == (3, 24, 40)
