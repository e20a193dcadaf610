"""A file that is not supported is told by its format, bands and bits; an intact one with harmless damage is read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.samples import file_of, textured
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter, ResizeAdapter, compose

WIDTH, HEIGHT = 56, 48
JPEG = file_of(Image.fromarray(textured(HEIGHT, WIDTH)), "JPEG")
SCAN, TABLES, FRAME = (JPEG.index(marker) for marker in (b"\xff\xda", b"\xff\xdb", b"\xff\xc0"))


def frame(marker: int, bits: int) -> bytes:
    """The JPEG with another kind of frame, so that its scan no longer fits."""
    return JPEG[:FRAME] + bytes([0xFF, marker, 0, 17, bits]) + JPEG[FRAME + 5 :]


def tiff(photometric: int, compression: int, bands: int = 1) -> bytes:
    """A little-endian TIFF in one strip of zeros, 8 bits per sample."""
    size, start = WIDTH * HEIGHT * bands, 8 + 2 + 12 * 9 + 4
    short, long = 3, 4
    entries = [
        *((256, short, WIDTH), (257, short, HEIGHT), (258, short, 8), (259, short, compression)),
        *((262, short, photometric), (273, long, start), (277, short, bands), (278, short, HEIGHT), (279, long, size)),
    ]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + bytes(size)


def bmp(bits: int, compression: int, masks: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    body = bytes(WIDTH * HEIGHT * 8)
    head = struct.pack("<IiiHHIIiiII3I", 40, WIDTH, HEIGHT, 1, bits, compression, len(body), 0, 0, 0, 0, *masks)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def psd(version: int, bits: int) -> bytes:
    return b"8BPS" + struct.pack(">H6xHIIHH", version, 3, HEIGHT, WIDTH, bits, 3) + bytes(14 + WIDTH * HEIGHT * 12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(0xC3, 8), ["JPEG", "lossless", "3 bands"]),
        (frame(0xC3, 16), ["JPEG", "lossless", "16 bits"]),
        (frame(0xC1, 12), ["JPEG", "12 bits"]),
        (frame(0xCA, 8), ["JPEG", "arithmetic"]),
        (frame(0xF7, 8), ["JPEG-LS"]),
        (tiff(1, 34712), ["TIFF", "1 band of uint8", "JPEG 2000"]),
        (tiff(1, 12345), ["TIFF", "12345"]),
        (tiff(32803, 1), ["TIFF", "colour filter array"]),
        (bmp(32, 3, (0x3FF00000, 0xFFC00, 0x3FF)), ["BMP", "32 bits", "10, 10 and 10"]),
        (bmp(64, 0), ["BMP", "64 bits"]),
        (psd(2, 8), ["PSB", "3 bands"]),
        (psd(1, 16), ["PSD", "16 bits", "RGB"]),
        (bytes(128) + b"DICM" + bytes(60), ["DICOM", "PNG"]),
        (b"photos/1.jpg".ljust(257, b"\0") + b"ustar\x0000" + bytes(250), ["tar archive"]),
        ("file;label\n".encode("utf-16"), ["text"]),
        ("Größe;Farbe\n".encode("latin-1"), ["text"]),
        (b"<!-- saved from url=(0014)about:internet -->\n<html>", ["HTML"]),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(range(64)), ["camera RAW"]),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(60), ["DICOM"]),
        (b"v/1\1" + bytes(60), ["OpenEXR"]),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", ["Radiance HDR"]),
        (b"II\xbc\1" + bytes(60), ["JPEG XR"]),
        (b"SIMPLE  =                    T".ljust(2880), ["FITS"]),
        (struct.pack("<i", 348) + bytes(340) + b"n+1\0", ["NIfTI"]),
        (b"P7\nWIDTH 2\nHEIGHT 2\n", ["PAM"]),
        (b"gimp xcf file\0", ["XCF"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), ["OLE"]),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD", ["Base64"]),
    ],
)
def test_the_reason_names_the_kind_and_no_damage(data: bytes, words: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        DecodeAdapter()(data)
    assert all(word in caught.value.reason for word in words), caught.value.reason
    assert "corrupt" not in caught.value.reason


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:SCAN] + b"abc" + JPEG[SCAN:],
        JPEG[:TABLES] + bytes(5) + JPEG[TABLES:],
        JPEG + b"trailing garbage" * 50,
        JPEG[:-2] + bytes(9) + JPEG[-2:],
        JPEG[:2] + b"\xff\xe1\0\x10Exif\0\0" + b"\xff" * 8 + JPEG[2:],
        JPEG[:2] + b"\xff\xe2\0\x20ICC_PROFILE\0\0\0" + b"\xee" * 16 + JPEG[2:],
        JPEG[:2] + b"\xff\xee\0\x07Adobe" + JPEG[2:],
        JPEG[:2] + b"\xff\xe2\0\x10MPF\0" + b"\xff" * 10 + JPEG[2:],
    ],
    ids=["before scan", "before tables", "trailing", "padding", "exif", "profile", "adobe", "mpf"],
)
def test_a_jpeg_whose_damage_touches_no_pixel_is_read(data: bytes) -> None:
    assert torch.equal(DecodeAdapter()(data), DecodeAdapter()(JPEG))


def test_bytes_that_a_scan_leaves_over_are_damage() -> None:
    scan = SCAN + 14
    with pytest.raises(ImageError, match="truncated or corrupt"):
        DecodeAdapter()(JPEG[:-2] + JPEG[scan : scan + 40].replace(b"\xff", b"\1") + JPEG[-2:])


def test_nothing_reaches_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    for data in (tiff(3, 1, 12), tiff(6, 7, 3), tiff(1, 34712), bmp(64, 0), psd(1, 16), frame(0xC3, 8)):
        with pytest.raises(ImageError):
            DecodeAdapter()(data)
    assert capfd.readouterr().err == ""


def test_the_limit_counts_the_pixels_that_are_decoded() -> None:
    """At 112 pixels, 1200 × 900 is decoded at a quarter, 300 × 225 = 67,500 pixels."""
    data = file_of(Image.fromarray(textured(900, 1200)), "JPEG")
    for limit, ok in ((67_500, True), (67_499, False)):
        prepare = compose(DecodeAdapter(scaled=True, max_pixels=limit), ResizeAdapter(112))
        if ok:
            assert prepare.decoded(data).pixels.shape == (3, 225, 300)
            continue
        with pytest.raises(ImageError, match="--max-pixels"):
            prepare.decoded(data)
    with pytest.raises(ImageError, match=r"max_pixels=67,500.*--scaled"):
        DecodeAdapter(max_pixels=67_500)(data)


def test_pillows_own_limit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for kind in ("JPEG", "PNG", "BMP"):
        data = file_of(Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), kind)
        assert DecodeAdapter()(data).shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP", "QOI", "SGI", "PCX"])
def test_the_reason_of_a_cut_file_names_its_format(kind: str) -> None:
    data = file_of(Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), kind.upper())
    with pytest.raises(ImageError, match=f"^bytes: truncated or corrupt {kind}: "):
        DecodeAdapter()(data[: len(data) * 2 // 3])
