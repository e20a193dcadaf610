"""Samples deeper than 8 bits and bands beyond RGB, against formulas, hand-packed files and OpenCV."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.images.samples import Array, file_of, png, tiff
from visionadapt.errors import ImageError, SpecError
from visionadapt.images import DecodeAdapter, Preprocessing, ResizeAdapter, compose

RANDOM = np.random.default_rng(0)
TWELVE = np.linspace(0, 4095, 9 * 14).round().astype(np.uint16).reshape(9, 14)
SIXTEEN = np.linspace(0, 65535, 9 * 14 * 3).round().astype(np.uint16).reshape(9, 14, 3)


def read(data: bytes, **options: object) -> Array:
    return DecodeAdapter(**options)(data).permute(1, 2, 0).numpy()  # type: ignore[arg-type]


def notes(data: bytes, **options: object) -> str:
    return "; ".join(DecodeAdapter(**options).decode(data, "x").repairs)  # type: ignore[arg-type]


def scaled(values: Array, low: float, high: float) -> Array:
    levels = np.floor((values.astype(np.float64) - low) / (high - low) * 255 + 0.5).clip(0, 255)
    return np.repeat(levels[..., None], 3, -1) if values.ndim == 2 else levels


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("given", [None, (0, 100), "declared"])
def test_bits_per_sample_fix_the_range(bits: int, given: object) -> None:
    values = (TWELVE.astype(int) * (2**bits - 1) // 4095).astype(np.uint16)
    assert np.array_equal(read(tiff(values, bits), sample_range=given), scaled(values, 0, 2**bits - 1))


@pytest.mark.parametrize("planes", [False, True])
def test_every_band_of_a_12_bit_colour_tiff(planes: bool) -> None:
    values = SIXTEEN >> 4
    assert np.array_equal(read(tiff(values, 12, planes=planes)), scaled(values, 0, 4095))


@pytest.mark.parametrize("data", [tiff(TWELVE), file_of(Image.fromarray(TWELVE), "PNG"), png(TWELVE, 16, 0)])
def test_12_bits_in_16_use_the_given_range_and_without_one_are_noted(data: bytes) -> None:
    assert np.array_equal(read(data, sample_range=(0, 4095)), scaled(TWELVE, 0, 4095))
    assert np.array_equal(read(data), scaled(TWELVE, 0, 65535))
    assert "0…4095" in notes(data) and "sample_range" in notes(data)
    with pytest.raises(ImageError, match="sample_range"):
        read(data, sample_range="declared")


def test_one_range_serves_all_bands() -> None:
    values = (SIXTEEN // 22).astype(np.uint16)
    values[..., 2] //= 2
    for data in (tiff(values), tiff(values, planes=True), png(values, 16, 2)):
        assert np.array_equal(read(data, sample_range=(0, 3000)), scaled(values, 0, 3000))


@pytest.mark.parametrize(("low", "high"), [(280, 281), (340, 341)])
def test_the_range_in_a_tiffs_tags_is_used_unless_one_is_given(low: int, high: int) -> None:
    data = tiff(TWELVE, tags={low: 0, high: 4095})
    assert np.array_equal(read(data), scaled(TWELVE, 0, 4095))
    assert np.array_equal(read(data, sample_range="declared"), scaled(TWELVE, 0, 4095))
    assert np.array_equal(read(data, sample_range=(0, 3000)), scaled(TWELVE, 0, 3000))


def test_16_bit_colour_keeps_all_bits() -> None:
    for data in (png(SIXTEEN, 16, 2), tiff(SIXTEEN), tiff(SIXTEEN, planes=True)):
        assert np.array_equal(read(data), np.floor(SIXTEEN / 257 + 0.5))


def test_16_bit_png_with_alpha() -> None:
    values = np.dstack([SIXTEEN, SIXTEEN[..., 0]])
    share = np.floor(values[..., 3:] / 257 + 0.5) / 255
    expected = np.floor(values[..., :3] / 257 + 0.5) * share + 255 * (1 - share)
    assert np.abs(read(png(values, 16, 6)) - expected).max() <= 0.5
    grey = values[..., [0, 3]]
    assert np.abs(read(png(grey, 16, 4)) - expected[..., [0, 0, 0]]).max() <= 0.5


@pytest.mark.parametrize("shift", [(0, 0), (4, 8), (4, 99)])
def test_significant_bits_of_a_png(shift: tuple[int, int]) -> None:
    """Low bits as they were, scaled as ISO 15948 wants it, and shifted."""
    values = (TWELVE << shift[0]) | (TWELVE >> shift[1] if shift[0] and shift[1] < 16 else 0)
    chunk = b"sBIT\x0c"
    data = png(values, 16, 0)
    data = data[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert np.abs(read(data) - scaled(TWELVE, 0, 4095)).max() <= 1


@pytest.mark.parametrize("maximum", [300, 1023, 4095, 65535])
@pytest.mark.parametrize("bands", [1, 3])
def test_maximum_of_a_portable_map(maximum: int, bands: int) -> None:
    values = np.linspace(0, maximum, 9 * 14 * bands).round().astype(">u2").reshape(9, 14, bands)
    data = b"P%d 14 9 %d\n" % (5 if bands == 1 else 6, maximum) + values.tobytes()
    assert np.abs(read(data) - values / maximum * 255).max() <= 1
    assert np.abs(read(data, sample_range=(0, 9)) - values / maximum * 255).max() <= 1


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_2000_of_more_than_8_bits(bands: int, bits: int) -> None:
    """The 12-bit file is a 16-bit one with another precision in its SIZ marker, which moves the level shift."""
    values = np.linspace(0, 2**bits - 1, 32 * 40 * bands).round().astype(np.uint16).reshape(32, 40, bands)
    shift = 32768 - 2 ** (bits - 1)
    _, coded = cv2.imencode(".jp2", values[..., ::-1] + shift, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    data = bytearray(coded.tobytes())
    place = data.index(b"\xff\x4f\xff\x51") + 42
    data[place : place + 3 * bands : 3] = bytes([bits - 1]) * bands
    data[data.index(b"ihdr") + 14] = bits - 1
    assert np.abs(read(bytes(data)) - values / (2**bits - 1) * 255).max() <= 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_is_zero(dtype: str) -> None:
    values = (SIXTEEN[..., 0] if dtype == "uint16" else SIXTEEN[..., 0] >> 8).astype(dtype)
    unit = values / np.float32(255) if dtype == "float32" else values
    high = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    assert np.abs(read(tiff(unit, tags={262: 0})) - (255 - scaled(unit, 0, high))).max() <= 1


def test_signed_samples_do_not_wrap() -> None:
    bytes_ = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    assert np.array_equal(read(tiff(bytes_))[..., 0], bytes_.astype(int) + 128)
    hounsfield = np.linspace(-1024, 3071, 126).round().astype(np.int16).reshape(9, 14)
    data = tiff(hounsfield)
    assert np.array_equal(read(data, sample_range=(-1000, 400)), scaled(hounsfield, -1000, 400))
    assert "own range" in notes(data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_use_the_given_range(dtype: str) -> None:
    values = (TWELVE / 4095 * 900).astype(dtype)
    assert np.abs(read(tiff(values), sample_range=(0, 1000)) - scaled(values, 0, 1000)).max() <= 1
    colour = np.dstack([values, values[::-1], values]) / 900
    assert np.abs(read(tiff(colour)) - scaled(colour, 0, 1)).max() <= 1


def test_16_bit_arrays_of_8_bit_values_are_not_black() -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(DecodeAdapter()(values), scaled(values, 0, 255))
    assert "8-bit" in notes(tiff(values))
    assert np.array_equal(DecodeAdapter(sample_range=(0, 510))(values), scaled(values, 0, 510))


COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}


PREDICTORS = [(kind, each) for kind in ("int8", "uint16", "int16", "int32") for each in (1, 2)]
PREDICTORS += [(kind, each) for kind in ("float32", "float64") for each in (1, 3)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("dtype", "predictor"), PREDICTORS)
def test_tiff_samples_equal_those_of_libtiff_in_opencv(dtype: str, compression: str, predictor: int) -> None:
    values = RANDOM.integers(0, 120, (37, 53, 3)).astype(dtype)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, COMPRESSIONS[compression], cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    done, data = cv2.imencode(".tif", values, [*options, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 8])
    assert done and np.array_equal(read(data.tobytes(), sample_range=(0, 119)), scaled(values[..., ::-1], 0, 119))


@pytest.mark.parametrize("bits", [0, 12])
@pytest.mark.parametrize("planes", [False, True])
def test_tiles(bits: int, planes: bool) -> None:
    values = (RANDOM.integers(0, 4096, (37, 53, 3))).astype(np.uint16)
    data = tiff(values, bits, planes=planes, tile=16)
    assert np.array_equal(read(data, sample_range=(0, 4095)), scaled(values, 0, 4095))


def test_pages_and_orientation() -> None:
    page = Image.fromarray(SIXTEEN[..., 0])
    assert "first of 2 frames" in notes(file_of(page, "TIFF", save_all=True, append_images=[page]))
    assert np.array_equal(read(tiff(SIXTEEN, tags={274: 6})), np.rot90(np.floor(SIXTEEN / 257 + 0.5), -1))


def test_a_cut_tiff_is_refused() -> None:
    for data in (tiff(SIXTEEN), tiff(SIXTEEN, planes=True), tiff(TWELVE, 12)):
        for cut in (len(data) - 9, len(data) // 2, 20):
            with pytest.raises(ImageError):
                read(data[:cut])
        short = bytearray(data)  # the strips end before the image does
        short[data.index(struct.pack("<HHI", 257, 3, 1)) + 8] = 200
        with pytest.raises(ImageError, match="strips"):
            read(bytes(short))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [2, 4, 5, 13])
def test_bands_that_no_tag_explains_are_refused_until_chosen(dtype: str, bands: int) -> None:
    values = RANDOM.integers(0, np.iinfo(dtype).max + 1, (9, 14, bands)).astype(dtype)
    levels = values if dtype == "uint8" else np.floor(values / 257 + 0.5)
    chosen = (min(bands, 3), 2, 1)
    for planes in (False, True):
        data = tiff(values, planes=planes)
        with pytest.raises(ImageError, match=rf"TIFF with {bands} bands of {dtype}.*bands="):
            read(data)
        assert np.array_equal(read(data, bands=chosen), levels[..., [band - 1 for band in chosen]])
        assert np.array_equal(read(data, bands=2), levels[..., [1, 1, 1]])
        with pytest.raises(ImageError, match=str(bands + 1)):
            read(data, bands=(bands + 1, 1, 1))


def test_a_fourth_band_is_alpha_only_where_a_tag_says_so() -> None:
    values = RANDOM.integers(0, 256, (9, 14, 4)).astype(np.uint8)
    for extra, refused in ((0, True), (1, False), (2, False)):
        data = tiff(values, tags={338: extra})
        if refused:
            with pytest.raises(ImageError, match="transparency"):
                read(data)
        else:
            assert "transparency" in notes(data)
        assert np.array_equal(read(data, bands=(1, 2, 3)), values[..., :3])


def test_alpha_of_a_16_bit_tiff_straight_and_premultiplied() -> None:
    colour, alpha = SIXTEEN, SIXTEEN[..., :1][::-1].copy()
    share = alpha / 65535
    expected = colour / 257 * share + 255 * (1 - share)
    straight = np.dstack([colour, alpha])
    multiplied = np.dstack([np.floor(colour * share + 0.5).astype(np.uint16), alpha])
    assert np.abs(read(tiff(straight, tags={338: 2})) - expected).max() <= 1.5
    assert np.abs(read(tiff(multiplied, tags={338: 1})) - expected).max() <= 1.5


def test_chosen_bands_hold_for_files_and_images_of_every_kind() -> None:
    rgb = RANDOM.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    image = Image.fromarray(rgb)
    jpeg = file_of(image, "JPEG", quality=95)
    assert np.array_equal(read(file_of(image, "PNG"), bands=(3, 2, 1)), rgb[..., ::-1])
    assert np.array_equal(read(jpeg, bands=(3, 3, 1)), read(jpeg)[..., [2, 2, 0]])
    decode = DecodeAdapter(bands=(3, 2, 1))
    assert np.array_equal(np.asarray(decode(image)), rgb[..., ::-1]) and np.array_equal(decode(rgb), rgb[..., ::-1])
    assert np.array_equal(DecodeAdapter(bands=(5, 2, 1))(np.dstack([rgb, rgb])), rgb[..., [1, 1, 0]])
    with pytest.raises(ImageError, match="1 band"):
        read(file_of(image.convert("L"), "PNG"), bands=(3, 2, 1))


@pytest.mark.parametrize("data", [tiff(SIXTEEN >> 4), png(SIXTEEN >> 4, 16, 2)])
def test_an_image_that_pillow_has_opened_keeps_its_depth(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        result = np.asarray(DecodeAdapter(sample_range=(0, 4095))(image))
    assert np.array_equal(result, scaled(SIXTEEN >> 4, 0, 4095))


def test_white_is_zero_in_an_image_that_pillow_has_loaded() -> None:
    with Image.open(io.BytesIO(tiff(SIXTEEN[..., 0], tags={262: 0}))) as image:
        image.load()
        assert np.array_equal(np.asarray(DecodeAdapter()(image)), 255 - scaled(SIXTEEN[..., 0], 0, 65535))


def test_range_and_bands_are_saved_only_where_they_are_set() -> None:
    plain, chosen = DecodeAdapter(), DecodeAdapter(sample_range=(0, 4095), bands=(3, 2, 1))
    (written,) = compose(plain).to_json()
    assert "sample_range" not in written and "bands" not in written
    for decode in (plain, chosen):
        prepare = compose(decode, ResizeAdapter(8))
        assert Preprocessing.from_json(prepare.to_json()) == prepare
        assert Preprocessing.from_json([{**step} for step in prepare.to_json()]).decode == decode


@pytest.mark.parametrize(
    "bad",
    [
        *[{"sample_range": (1, 1)}, {"sample_range": (5, 1)}, {"sample_range": (0, float("nan"))}, {"sample_range": 9}],
        *[{"bands": (0, 1, 2)}, {"bands": (1, 2)}, {"bands": "321"}, {"bands": (1.0, 2, 3)}],
    ],
)
def test_settings_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(bad))):
        DecodeAdapter(**bad)  # type: ignore[arg-type]
