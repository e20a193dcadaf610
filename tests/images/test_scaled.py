"""Large JPEGs decoded at a fraction of their size: never too small, nearly the same pixels, and only on request."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import visionadapt as va
from visionadapt.images import DecodeAdapter, NormalizeAdapter, ResizeAdapter, compose
from visionadapt.images.resize import Policy


def photograph(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG with structure at many scales."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(2 * np.pi * frequency * (x + shift * y)) for frequency, shift in ((3, 1), (17, -2), (61, 0.5))]
    pixels = np.stack([127 + 60 * waves[0], 127 + 40 * waves[1], 127 + 30 * waves[2] + 30 * waves[0]], axis=2)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2000, 1500), (500, 375)), ((1784, 1784), (446, 446)), ((600, 400), (600, 400)), ((3000, 445), (3000, 445))],
)
def test_no_side_gets_shorter_than_twice_the_target(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """At 112 pixels twice the target is 224: 1500 / 4 = 375 ≥ 224 and 1500 / 8 = 188 is too short."""
    prepare = compose(DecodeAdapter(scaled=True), ResizeAdapter(112))
    assert tuple(prepare.decoded(photograph(*size)).pixels.shape[:0:-1]) == expected


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_result_is_nearly_the_same(policy: Policy, orientation: int) -> None:
    data = photograph(1600, 1200, orientation)
    exact, scaled = (
        compose(DecodeAdapter(scaled=scaled), ResizeAdapter(128, policy=policy)).host(data).float()
        for scaled in (False, True)
    )
    assert exact.shape == scaled.shape
    assert 0 < (exact - scaled).abs().mean() < 1.0


def test_only_on_request_and_where_the_target_size_is_known() -> None:
    data = photograph(1600, 1200)
    plain = DecodeAdapter()(data)
    assert plain.shape == (3, 1200, 1600)
    assert compose(ResizeAdapter(64)).decoded(data).pixels.equal(plain)
    assert compose(DecodeAdapter(scaled=True)).decoded(data).pixels.equal(plain)
    assert DecodeAdapter(scaled=True)(data).equal(plain)


@pytest.mark.slow
def test_it_is_saved_with_the_preprocessing() -> None:
    prepare = va.preprocessing_for("tf_efficientnet_lite0", scaled=True)
    again = va.images.Preprocessing.from_json(prepare.to_json())
    assert again == prepare
    assert again.decode.scaled
    data = photograph(2000, 1500)
    assert again.host(data).equal(prepare.host(data))
    assert not va.preprocessing_for("tf_efficientnet_lite0").decode.scaled
    assert isinstance(prepare.normalize, NormalizeAdapter)
