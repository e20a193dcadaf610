"""Scaling of sample depth against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visionadapt.errors import ImageError
from visionadapt.images.depth import Declared, set_range, to_uint8


def nearest(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def test_every_16_bit_value_is_rounded_to_the_nearest_level_and_stays_in_order() -> None:
    values = np.arange(65536, dtype=np.uint16)
    pixels, note = to_uint8(values)
    assert pixels.tolist() == [nearest(Fraction(value, 257)) for value in range(65536)]
    assert (np.diff(pixels.astype(int)) >= 0).all() and note == "scaled 16-bit to 8-bit"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([False, True]), [0, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([0, 128, 65535], np.int32), [0, 0, 255]),
        (np.array([0, 2**30, 2**31 - 1], np.uint32), [0, 128, 255]),
        (np.array([-100, 0, 100], np.int16), [0, 128, 255]),
        (np.array([0, 2**40], np.int64), [0, 255]),
        (np.array([0.0, 0.5, 1.0], np.float16), [0, 128, 255]),
        (np.array([10.0, 20.0, 30.0], np.float32), [0, 128, 255]),
        (np.array([-1e308, 1e308]), [0, 255]),
        (np.array([3.0, 3.0]), [0, 0]),
        (np.array([0.2, 0.2]), [51, 51]),
    ],
)
def test_worked_examples(values: np.ndarray, expected: list[int]) -> None:  # type: ignore[type-arg]
    pixels, note = to_uint8(values)
    assert pixels.dtype == np.uint8 and pixels.tolist() == expected and note


def test_uint8_is_untouched() -> None:
    values = np.arange(256, dtype=np.uint8)
    pixels, note = to_uint8(values)
    assert pixels is values and note is None


@given(hnp.arrays(np.int32, st.integers(1, 20), elements=st.integers(0, 65535)))
def test_integers_are_scaled_by_the_smallest_depth_that_holds_them(values: np.ndarray) -> None:  # type: ignore[type-arg]
    range_ = 255 if values.max() <= 255 else 65535
    assert to_uint8(values)[0].tolist() == [nearest(Fraction(int(value) * 255, range_)) for value in values]


@given(hnp.arrays(np.float32, st.integers(2, 20), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_floats_keep_their_order(values: np.ndarray) -> None:  # type: ignore[type-arg]
    pixels = to_uint8(values)[0].astype(int)
    assert (np.diff(pixels[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"a\.tif: .*NaN"):
        to_uint8(np.array([0.5, value]), "a.tif")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_a_range_maps_its_ends_to_0_and_255_in_small_and_large_images(dtype: type) -> None:
    values = np.linspace(-100, 5000, 300).astype(dtype) if dtype != np.uint16 else np.arange(0, 6000, 20, dtype=dtype)
    expected = [min(max(nearest(Fraction(float(value)) * 255 / 3000), 0), 255) for value in values]
    assert to_uint8(values, given=(0, 3000))[0].tolist() == expected
    assert to_uint8(np.tile(values, 300), given=(0, 3000))[0].tolist() == expected * 300
    wide = to_uint8(values, given=(-(10**6), 10**6))[0]
    assert wide.tolist() == [nearest(Fraction(float(value) + 10**6) * 255 / (2 * 10**6)) for value in values]


def test_what_a_format_declares_overrules_the_given_range_and_tags_do_not() -> None:
    values = np.array([0, 1000], np.uint16)
    assert to_uint8(values, declared=Declared(0, 1000), given=(0, 2000))[0].tolist() == [0, 255]
    assert to_uint8(values, declared=Declared(0, 1000, firm=False), given=(0, 2000))[0].tolist() == [0, 128]
    assert to_uint8(values, declared=Declared(0, 1000, firm=False), given="declared")[0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("low", "high", "floats", "expected"),
    [
        *[(3, 4095, False, (0, 4095)), (7000, 9000, False, (7000, 9000)), (-1024, 3071, False, (-1024, 3071))],
        *[
            (0, 180, False, (0, 255)),
            (0.1, 0.9, True, (0, 1)),
            (0.0, 254.0, True, (0, 255)),
            (0.0, 90.0, True, (0, 90)),
        ],
    ],
)
def test_range_of_a_set(low: float, high: float, floats: bool, expected: tuple[float, float]) -> None:
    assert set_range(low, high, floats) == expected
