"""Every mode and file format against pixels that are computed independently of the decoder."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.samples import AVIF, Array, file_of, image_of, png, smooth, textured
from visionadapt.errors import ImageError, SpecError
from visionadapt.images import DecodeAdapter

RGB = textured(23, 31)
GREY = RGB[:, :, 0]
ALPHA = np.tile(np.linspace(0, 255, 31).round().astype(np.uint8), (23, 1))


def read(data: bytes, **options: object) -> Array:
    decoded = DecodeAdapter(**options)(data)  # type: ignore[arg-type]
    assert decoded.dtype == torch.uint8 and decoded.shape[0] == 3
    return decoded.permute(1, 2, 0).numpy()


def repairs(data: bytes) -> tuple[str, ...]:
    return DecodeAdapter().decode(data, "image").repairs


def three(grey: Array) -> Array:
    return np.stack([grey] * 3, axis=-1)


def composited(colour: Array, alpha: Array, background: tuple[int, int, int] = (255, 255, 255)) -> Array:
    share = alpha[..., None] / 255
    return np.floor(colour * share + np.array(background) * (1 - share) + 0.5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})],
        *[("TIFF", {"compression": "tiff_deflate"}), ("PPM", {}), ("TGA", {}), ("SGI", {}), ("PCX", {}), ("QOI", {})],
        *[("JPEG2000", {}), ("DDS", {}), ("DIB", {})],
    ],
)
def test_lossless_formats_give_the_pixels_back(kind: str, options: dict[str, object]) -> None:
    data = file_of(Image.fromarray(RGB), kind, **options)
    assert np.array_equal(read(data), RGB)
    assert repairs(data) == ()


@pytest.mark.skipif(not AVIF, reason="this build of Pillow has no AVIF")
def test_avif_is_read() -> None:
    data = file_of(Image.fromarray(smooth()), "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(read(data).astype(int) - smooth()).max() <= 4


@pytest.mark.parametrize(
    "options",
    [
        *[{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": "4:2:2"}, {"quality": 30, "optimize": True}],
        *[{"keep_rgb": True}, {"restart_marker_rows": 1}],
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_has_the_same_bits_as_pillow(mode: str, options: dict[str, object]) -> None:
    data = file_of(Image.fromarray(textured(67, 93)).convert(mode), "JPEG", **options)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(read(data), reference)


def test_grey_and_one_bit() -> None:
    assert np.array_equal(read(file_of(Image.fromarray(GREY), "PNG")), three(GREY))
    bits = GREY > 128
    for kind in ("PNG", "TIFF", "BMP"):
        data = file_of(Image.fromarray(bits), kind)
        assert np.array_equal(read(data), three(bits * np.uint8(255)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_low_depth_grey_png_is_scaled_to_the_full_range(bits: int) -> None:
    samples = GREY.astype(int) >> (8 - bits)
    expected = np.floor(samples * 255 / (2**bits - 1) + 0.5)
    assert np.array_equal(read(png(samples, bits, 0)), three(expected))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_value_of_a_grey_png_is_composited_on_the_background(bits: int) -> None:
    samples = GREY.astype(int) >> (8 - bits)
    key = int(samples[0, 0])
    data = png(samples, bits, 0, key.to_bytes(2, "big"))
    expected = three(np.floor(samples * 255 / (2**bits - 1) + 0.5))
    expected[samples == key] = (10, 20, 30)
    assert np.array_equal(read(data, background=(10, 20, 30)), expected)
    assert "transparency composited on white" in repairs(data)


def test_transparent_colour_of_an_rgb_png_is_composited_on_the_background() -> None:
    samples = RGB.copy()
    samples[:5, :7] = (1, 2, 3)
    data = png(samples, 8, 2, b"\0\x01\0\x02\0\x03")
    expected = samples.copy()
    expected[(samples == (1, 2, 3)).all(-1)] = (9, 9, 9)
    assert np.array_equal(read(data, background=(9, 9, 9)), expected)


def test_alpha_of_every_kind_is_composited_on_the_background() -> None:
    rgba, la = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
    for kind in ("PNG", "TIFF", "TGA"):
        assert np.array_equal(read(file_of(Image.fromarray(rgba), kind)), composited(RGB, ALPHA))
    data = file_of(Image.fromarray(la), "PNG")
    assert np.array_equal(read(data, background=(200, 0, 90)), composited(three(GREY), ALPHA, (200, 0, 90)))
    assert repairs(data) == ("transparency composited on white",)


def test_opaque_alpha_is_no_repair() -> None:
    data = file_of(Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])), "PNG")
    assert np.array_equal(read(data), RGB) and repairs(data) == ()


def test_premultiplied_alpha() -> None:
    image = Image.fromarray(np.dstack([RGB, ALPHA])).convert("RGBa")
    result = np.asarray(DecodeAdapter()(image)).astype(int)
    assert np.abs(result - composited(RGB, ALPHA)).max() <= 2
    grey = Image.fromarray(np.dstack([GREY, ALPHA])).convert("La")
    assert np.abs(np.asarray(DecodeAdapter()(grey)).astype(int) - composited(three(GREY), ALPHA)).max() <= 2


def palette_image() -> tuple[Image.Image, Array, Array]:
    indices = (GREY // 64).astype(np.uint8)
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 100], [7, 8, 9]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.reshape(-1).tolist())
    image.putpalette(palette.reshape(-1).tolist())
    return image, indices, palette


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(kind: str) -> None:
    image, indices, palette = palette_image()
    assert np.array_equal(read(file_of(image, kind)), palette[indices])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_one_transparent_entry(kind: str) -> None:
    image, indices, palette = palette_image()
    palette[2] = (255, 255, 255)
    assert np.array_equal(read(file_of(image, kind, transparency=2)), palette[indices])


def test_palette_with_alpha_for_each_entry() -> None:
    image, indices, palette = palette_image()
    alpha = np.array([255, 128, 0, 30], dtype=np.uint8)
    data = file_of(image, "PNG", transparency=alpha.tobytes())
    assert np.array_equal(read(data), composited(palette[indices], alpha[indices]))
    pa = Image.merge("LA", [image.convert("L"), Image.fromarray(ALPHA)]).convert("PA")
    assert np.asarray(DecodeAdapter()(pa)).shape == (23, 31, 3)


def test_cmyk_tiff_and_jpeg() -> None:
    ink = np.dstack([255 - smooth(), np.full(smooth().shape[:2], 60, dtype=np.uint8)])
    expected = (255 - ink[..., :3].astype(float)) * (255 - 60) / 255
    tiff, jpeg = (file_of(image_of(ink, "CMYK"), kind, **o) for kind, o in (("TIFF", {}), ("JPEG", JPEG_BEST)))
    assert np.abs(read(tiff) - expected).max() <= 1
    assert np.abs(read(jpeg) - expected).max() <= 5
    assert repairs(jpeg) == ("CMYK converted to RGB",)


JPEG_BEST = {"quality": 100, "subsampling": 0}


def test_ycck_jpeg() -> None:
    """Adobe's YCCK: Y, Cb and Cr of the inks, K inverted; made by marking a 4-component JPEG so (Adobe TN 5116)."""
    ink = 255.0 - smooth()
    y = ink @ (0.299, 0.587, 0.114)
    cb, cr = 128 + (ink[..., 2] - y) / 1.772, 128 + (ink[..., 0] - y) / 1.402
    stored = np.stack([y, cb, cr, np.full_like(y, 255)], axis=-1).round().clip(0, 255).astype(np.uint8)
    data = bytearray(file_of(image_of(255 - stored, "CMYK"), "JPEG", **JPEG_BEST))
    flag = data.index(b"Adobe") + 11
    assert data[flag] == 0
    data[flag] = 2
    assert np.abs(read(bytes(data)).astype(int) - smooth()).max() <= 6


def test_lab_grey_ramp() -> None:
    lightness = np.tile(np.arange(0, 256, 5, dtype=np.uint8), (4, 1))
    neutral = np.full_like(lightness, 128)
    image = Image.merge("LAB", [Image.fromarray(lightness), Image.fromarray(neutral), Image.fromarray(neutral)])
    scaled = (lightness / 255 * 100 + 16) / 116
    luminance = np.where(scaled > 6 / 29, scaled**3, (scaled - 4 / 29) * 3 * (6 / 29) ** 2)
    expected = 255 * np.where(luminance > 0.0031308, 1.055 * luminance ** (1 / 2.4) - 0.055, 12.92 * luminance)
    assert np.abs(np.asarray(DecodeAdapter()(image)) - expected[..., None]).max() <= 2
    assert np.abs(read(file_of(image, "TIFF")) - expected[..., None]).max() <= 2


def test_hsv_and_ycbcr_images() -> None:
    hsv = smooth(6, 7)
    expected = np.array([[colorsys.hsv_to_rgb(*(pixel / 255)) for pixel in row] for row in hsv]) * 255
    assert np.abs(np.asarray(DecodeAdapter()(image_of(hsv, "HSV"))) - expected).max() <= 3
    rgb = smooth().astype(float)
    y = rgb @ (0.299, 0.587, 0.114)
    ycbcr = np.stack([y, 128 + (rgb[..., 2] - y) / 1.772, 128 + (rgb[..., 0] - y) / 1.402], axis=-1).round()
    image = image_of(ycbcr.astype(np.uint8), "YCbCr")
    assert np.abs(np.asarray(DecodeAdapter()(image)) - rgb).max() <= 2


DEEP = (textured(23, 31, seed=3)[:, :, 0].astype(np.uint16) << 8) + np.arange(31, dtype=np.uint16)


def test_16_bit_files_are_scaled_not_saturated() -> None:
    expected = three(np.floor(DEEP / 257 + 0.5))
    little, big = Image.fromarray(DEEP), Image.frombytes("I;16B", (31, 23), DEEP.astype(">u2").tobytes())
    for data in (file_of(little, "PNG"), file_of(little, "TIFF"), file_of(big, "TIFF"), png(DEEP, 16, 0)):
        assert np.array_equal(read(data), expected)
        assert repairs(data) == ("scaled 16-bit to 8-bit",)


def test_16_bit_grey_png_with_a_transparent_value() -> None:
    key = int(DEEP[4, 4])
    expected = three(np.floor(DEEP / 257 + 0.5))
    expected[key == DEEP] = 255
    assert np.array_equal(read(png(DEEP, 16, 0, key.to_bytes(2, "big"))), expected)


def test_16_bit_colour_png_is_right_within_one_level() -> None:
    samples = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    assert np.abs(read(png(samples, 16, 2)) - samples / 257).max() <= 1
    samples[:3, :3] = (258, 515, 772)
    transparent = read(png(samples, 16, 2, b"\x01\x02\x02\x03\x03\x04"))
    assert (transparent[:3, :3] == 255).all()


@pytest.mark.parametrize(("factor", "range_"), [(1, 255), (257, 65535), (8421504, 2**31 - 1)])
def test_32_bit_integers(factor: int, range_: int) -> None:
    values = GREY.astype(np.int64) * factor
    values[0, 0] = 255 * factor
    data = file_of(Image.fromarray(values.astype(np.int32)), "TIFF")
    assert np.array_equal(read(data), three(np.floor(values * 255 / range_ + 0.5)))


def test_float_tiff() -> None:
    unit = (GREY / 255).astype(np.float32)
    assert np.array_equal(read(file_of(Image.fromarray(unit), "TIFF")), three(GREY))
    wide = np.linspace(-500, 1500, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(read(file_of(Image.fromarray(wide), "TIFF"))[..., 0].reshape(-1), np.arange(256))


def test_float_tiff_with_nan_is_refused() -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    values[1, 1] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        read(file_of(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (read(data) == (255, 0, 0)).all()
    assert repairs(data) == ("first of 3 frames",)


def test_first_image_of_an_mpo() -> None:
    left, right = Image.fromarray(smooth()), Image.fromarray(smooth()[::-1].copy())
    data = file_of(left, "MPO", save_all=True, append_images=[right], quality=95)
    assert np.abs(read(data).astype(int) - smooth()).max() <= 12
    assert repairs(data) == ("first of 2 frames",)


def test_icons() -> None:
    square = Image.fromarray(textured(32, 32))
    for kind in ("ICO", "ICNS"):
        assert read(file_of(square, kind)).shape[2] == 3


def test_what_goes_in_comes_out() -> None:
    decode = DecodeAdapter()
    image = decode(Image.fromarray(GREY))
    assert isinstance(image, Image.Image) and image.mode == "RGB" and np.array_equal(np.asarray(image), three(GREY))
    array = decode(DEEP)
    assert isinstance(array, np.ndarray) and np.array_equal(array, three(np.floor(DEEP / 257 + 0.5)))
    assert np.array_equal(decode(np.dstack([RGB, ALPHA])), composited(RGB, ALPHA))
    tensor = decode(torch.from_numpy(RGB / 255).permute(2, 0, 1))
    assert torch.equal(tensor, torch.from_numpy(RGB).permute(2, 0, 1))
    assert torch.equal(decode(torch.from_numpy(GREY > 9)), torch.from_numpy(three((GREY > 9) * 255)).permute(2, 0, 1))
    assert decode(torch.ones(1, 4, 5, dtype=torch.bfloat16)).unique().tolist() == [255]


def test_arrays_that_hold_no_image_are_refused() -> None:
    for values in (np.zeros((3, 4, 5, 6), np.uint8), np.zeros((4, 4, 7), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match="shape"):
            DecodeAdapter()(values)
    with pytest.raises(ImageError, match="complex"):
        DecodeAdapter()(np.zeros((4, 4), complex))
    with pytest.raises(ImageError, match="int: "):
        DecodeAdapter()(3)  # type: ignore[call-overload]


@pytest.mark.parametrize("bad", [{"background": (1, 2)}, {"background": 256}, {"max_pixels": 0}, {"scaled": 2}])
def test_settings_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="DecodeAdapter"):
        DecodeAdapter(**bad)  # type: ignore[arg-type]
