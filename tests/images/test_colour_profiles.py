"""Colours are converted from the profile in a file to sRGB, as the formulas of ICC.1 and IEC 61966-2-1 say."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageCms

import visionadapt as va
from tests.images.samples import Array, file_of, image_of, smooth, textured
from visionadapt.errors import SpecError
from visionadapt.images import DecodeAdapter
from visionadapt.runs.options import read_options

D50 = (0.9642, 1.0, 0.8249)
ADOBE = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
"""Adobe RGB (1998) to XYZ at D50; rows X, Y, Z."""
SRGB = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410))
GAMMA = 563 / 256


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC version 2 profile (ICC.1:2001, 6)."""
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = bytes(4) + struct.pack(">I", 0x02400000) + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    head = (head + fixed(*D50)).ljust(124, b"\0")
    return struct.pack(">I", 128 + 4 + len(table) + len(body)) + head + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def described() -> dict[bytes, bytes]:
    return {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), b"wtpt": xyz(*D50)}


def adobe_rgb() -> bytes:
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (xyz(*column) for column in zip(*ADOBE, strict=True)), strict=True))
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(GAMMA))
    return profile(b"RGB ", b"mntr", b"XYZ ", {**described(), **columns, **curves})


def light_grey() -> bytes:
    return profile(b"GRAY", b"mntr", b"XYZ ", {**described(), b"kTRC": curve(1.5)})


def black_ink() -> bytes:
    """A CMYK profile in which only black ink is visible: L* = 100 − K in percent."""
    ramp = bytes(range(256))
    grid = b"".join(bytes([0 if place & 1 else 255, 128, 128]) for place in range(16))
    table = b"mft1\0\0\0\0\4\3\2\0" + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + grid + ramp * 3
    return profile(b"CMYK", b"prtr", b"Lab ", {**described(), b"A2B0": table, b"A2B1": table})


def encoded(linear: Array) -> npt.NDArray[np.uint8]:
    """The sRGB transfer function (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curved).astype(np.uint8)


def from_adobe(pixels: Array) -> npt.NDArray[np.uint8]:
    return encoded((pixels / 255) ** GAMMA @ (np.linalg.inv(np.array(SRGB)) @ np.array(ADOBE)).T)


def difference(data: bytes, expected: Array, **options: Any) -> int:
    got = DecodeAdapter(**options)(data).permute(1, 2, 0).numpy().astype(int)
    return int(np.abs(got - expected).max())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})],
)
def test_an_rgb_profile_is_applied(kind: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(smooth())
    plain = DecodeAdapter()(file_of(image, kind, **options)).permute(1, 2, 0).numpy()
    data = file_of(image, kind, icc_profile=adobe_rgb(), **options)
    assert difference(data, from_adobe(plain)) <= 2
    assert difference(data, plain) > 5
    assert "colours converted to sRGB by their profile" in DecodeAdapter().decode(data).repairs
    assert difference(data, plain, icc="ignore") == 0


def test_it_is_applied_to_palettes_images_in_memory_and_deep_samples() -> None:
    palette = Image.fromarray(smooth()).quantize(32)
    expected = from_adobe(np.asarray(palette.convert("RGB")))
    assert difference(file_of(palette, "PNG", icc_profile=adobe_rgb()), expected) <= 2
    with Image.open(io.BytesIO(file_of(Image.fromarray(smooth()), "PNG", icc_profile=adobe_rgb()))) as opened:
        assert np.abs(np.asarray(DecodeAdapter()(opened)).astype(int) - from_adobe(smooth())).max() <= 2


def test_alpha_is_kept() -> None:
    pixels = np.dstack([smooth(), np.full(smooth().shape[:2], 128, np.uint8)])
    data = file_of(image_of(pixels, "RGBA"), "PNG", icc_profile=adobe_rgb())
    expected = np.round((from_adobe(smooth()).astype(float) * 128 + 255 * 127) / 255)
    assert difference(data, expected) <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_grey_profile_is_applied(kind: str) -> None:
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))
    plain = DecodeAdapter()(file_of(image_of(ramp, "L"), kind)).permute(1, 2, 0).numpy()
    assert difference(file_of(image_of(ramp, "L"), kind, icc_profile=light_grey()), encoded((plain / 255) ** 1.5)) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_applied(kind: str) -> None:
    """Pillow's own formula would show the cyan ink, which this profile does not."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0], inks[8:, :, 3] = 255, 255
    options = {"quality": 100} if kind == "JPEG" else {}
    data = file_of(image_of(inks, "CMYK"), kind, icc_profile=black_ink(), **options)
    pixels = DecodeAdapter()(data)
    assert pixels[:, 2].min() >= 250 and pixels[:, 13].max() <= 5
    assert DecodeAdapter(icc="ignore")(data)[0, 2].max() < 50


def test_srgb_changes_nothing() -> None:
    data = Image.fromarray(textured(40, 56))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG"):
        decoded = DecodeAdapter().decode(file_of(data, kind, icc_profile=srgb))
        assert torch.equal(decoded.pixels, DecodeAdapter()(file_of(data, kind))) and decoded.repairs == ()


@pytest.mark.parametrize(
    "broken", [b"no profile", adobe_rgb()[:200], adobe_rgb()[:128] + bytes(300), light_grey(), black_ink()]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_broken_or_unfitting_profile_is_ignored(kind: str, broken: bytes) -> None:
    image = Image.fromarray(textured(40, 56))
    decoded = DecodeAdapter().decode(file_of(image, kind, icc_profile=broken))
    assert torch.equal(decoded.pixels, DecodeAdapter()(file_of(image, kind)))
    assert any("profile ignored" in repair for repair in decoded.repairs)


def test_former_preprocessing_ignores_profiles() -> None:
    new = va.preprocessing_for("tf_efficientnet_lite0")
    saved = new.to_json()
    assert va.images.Preprocessing.from_json(saved) == new and new.decode.icc == "convert"
    del saved[0]["icc"]
    former = va.images.Preprocessing.from_json(saved)
    assert former.decode.icc == "ignore" and former.to_json() == saved
    assert read_options({"options": {"data": "photos"}})["icc"] == "ignore"
    with pytest.raises(SpecError, match="icc"):
        DecodeAdapter(icc="perhaps")  # type: ignore[arg-type]
