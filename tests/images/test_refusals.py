"""Anything but a complete image raises an ImageError that names the file and the reason, and nothing else."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.images.samples import AVIF, file_of, png, textured
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

KINDS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "grey jpeg": ("JPEG", {"mode": "L"}),
    "cmyk jpeg": ("JPEG", {"mode": "CMYK"}),
    "png": ("PNG", {}),
    "palette png": ("PNG", {"mode": "P"}),
    "gif": ("GIF", {"mode": "P"}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate tiff": ("TIFF", {"compression": "tiff_deflate"}),
    "jpeg tiff": ("TIFF", {"compression": "jpeg"}),
    "bmp": ("BMP", {}),
    "tga": ("TGA", {"compression": "tga_rle"}),
    "ppm": ("PPM", {}),
    "jpeg 2000": ("JPEG2000", {}),
    **({"avif": ("AVIF", {})} if AVIF else {}),
    "ico": ("ICO", {}),
    "qoi": ("QOI", {}),
}


@cache
def whole(name: str) -> bytes:
    kind, options = KINDS[name]
    options = dict(options)
    image = Image.fromarray(textured(48, 48)).convert(options.pop("mode", "RGB"))
    return file_of(image, kind, **options)


@cache
def pixels(name: str) -> torch.Tensor:
    return DecodeAdapter()(whole(name))


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file_is_refused_unless_every_pixel_is_present(name: str) -> None:
    data = whole(name)
    refused = 0
    for cut in {*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 30, len(data))}:
        try:
            assert torch.equal(DecodeAdapter()(data[:cut]), pixels(name)), f"part of an image at {cut} of {len(data)}"
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 60


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "grey jpeg", "cmyk jpeg"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_jpeg_with_an_end_marker_is_refused(name: str, share: float) -> None:
    """Pillow returns such a file, grey from the cut on."""
    data = whole(name)
    scan = data.index(b"\xff\xda") + 14
    cut = scan + int((len(data) - scan) * share)
    half = data[:cut].rstrip(b"\xff") + b"\xff\xd9"
    if name == "progressive jpeg" and share > 0.5:
        half = data[: data.rindex(b"\xff\xda") + 20] + b"\xff\xd9"
    with pytest.raises(ImageError, match="truncated or corrupt"):
        DecodeAdapter()(half)


@pytest.mark.parametrize("name", ["jpeg", "grey jpeg", "cmyk jpeg"])
def test_a_jpeg_that_only_lacks_its_end_marker_is_read(name: str) -> None:
    for end in (-2, -1):
        decoded = DecodeAdapter().decode(whole(name)[:end], "x")
        assert torch.equal(decoded.pixels, pixels(name)) and decoded.repairs[0] == "missing end marker added"


def test_padding_before_the_end_of_a_jpeg_is_read() -> None:
    assert torch.equal(DecodeAdapter()(whole("jpeg")[:-2] + b"\0\0\0\0\xff\xd9"), pixels("jpeg"))


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    data = bytearray(whole("png"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ImageError, match="IDAT"):
        DecodeAdapter()(bytes(data))


def test_a_tiff_whose_strips_do_not_fill_it_is_refused() -> None:
    data = bytearray(whole("tiff"))
    at = data.index(struct.pack("<HH", 257, 4) if struct.pack("<HH", 257, 4) in data else struct.pack("<HH", 257, 3))
    data[at + 8 : at + 10] = struct.pack("<H", 4800)
    with pytest.raises(ImageError, match=r"48×4800|truncated or corrupt"):
        DecodeAdapter()(bytes(data))


@pytest.mark.slow
@settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(KINDS)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
def test_damaged_files_give_an_image_or_an_image_error(name: str, flips: list[tuple[float, int]], head: bool) -> None:
    data = bytearray(whole(name))
    for place, value in flips:
        data[int(place * (min(120, len(data)) if head else len(data)))] = value
    try:
        decoded = DecodeAdapter(max_pixels=4_000_000).decode(bytes(data), "damaged")
    except ImageError as error:
        assert error.file == "damaged" and error.reason and "\n" not in error.reason and len(str(error)) < 400
    else:
        assert decoded.pixels.dtype == torch.uint8 and decoded.pixels.shape[0] == 3


@settings(max_examples=200, deadline=5000)
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_give_an_image_or_an_image_error(data: bytes) -> None:
    try:
        assert DecodeAdapter(max_pixels=4_000_000)(data).shape[0] == 3
    except ImageError as error:
        assert error.reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (bytes(500), "all zero"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\n  <HTML>", "HTML"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xd7\xcd\xc6\x9a" + bytes(30), "Windows metafile"),
        (b"\0\0\0\x18ftypmp42" + bytes(30), "video"),
        (b"\x1aE\xdf\xa3" + bytes(30), "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\0\0\0\x18ftypcrx " + bytes(30), "RAW"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(30), "RAW"),
        (b"FUJIFILMCCD-RAW 0201", "RAW"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"PK\x03\x04" + bytes(30), "ZIP"),
        (b"\x1f\x8b\x08" + bytes(30), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"access denied\r\n", "text file"),
        ("Zugriff verweigert – ä".encode(), "text file"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"\x81\x92\xa3\xb4\xc5\xd6\xe7\xf8", "bytes 81 92 a3 b4"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
    ],
)
def test_the_reason_names_the_format(data: bytes, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        DecodeAdapter().decode(data, "photo.jpg")
    assert words in caught.value.reason and caught.value.file == "photo.jpg"
    assert str(caught.value).startswith("photo.jpg: ")


def test_anything_but_a_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "none.jpg", "cannot be read: No such file"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(ImageError, match=words):
            DecodeAdapter()(path)


def test_a_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fläche.png"
    path.write_bytes(whole("png"))
    assert torch.equal(DecodeAdapter()(path), pixels("png")) and torch.equal(DecodeAdapter()(str(path)), pixels("png"))


def test_limits_hold_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageError, match=r"12000×12000.*max_pixels=1,000,000"):
        DecodeAdapter(max_pixels=1_000_000)(bomb)
    with pytest.raises(ImageError, match="max_bytes=100"):
        DecodeAdapter(max_bytes=100)(whole("png"))
    path = tmp_path / "large.png"
    path.write_bytes(whole("png"))
    with pytest.raises(ImageError, match="max_bytes=100"):
        DecodeAdapter(max_bytes=100)(path)
    with pytest.raises(ImageError, match="max_pixels=100"):
        DecodeAdapter(max_pixels=100)(Image.new("RGB", (30, 30)))


def test_a_decompression_bomb_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(ImageError, match="max_pixels"):
        DecodeAdapter()(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))


def test_images_without_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="0×5"):
        DecodeAdapter()(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError):
        DecodeAdapter()(png(np.zeros((0, 0, 3), np.uint8), 8, 2))


def test_camera_raw_in_tiff_clothing_is_refused() -> None:
    tags = {50706: (1, 4, 0, 0)}
    data = file_of(Image.fromarray(textured(9, 9)), "TIFF", tiffinfo=tags)
    with pytest.raises(ImageError, match="camera RAW"):
        DecodeAdapter()(data)


def heic_header() -> bytes:
    return struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40)


def test_heic_without_its_plugin_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'visionadapt\[heif\]'"):
        DecodeAdapter()(heic_header())


def test_heic_with_its_plugin() -> None:
    plugin = pytest.importorskip("pillow_heif")
    plugin.register_heif_opener()
    data = file_of(Image.fromarray(textured(48, 64)), "HEIF", quality=100)
    assert DecodeAdapter()(data).shape == (3, 48, 64)
    with pytest.raises(ImageError, match="truncated or corrupt"):
        DecodeAdapter()(data[: len(data) // 2])
