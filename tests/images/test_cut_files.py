"""A file of any format that is cut or damaged anywhere gives the pixels of the whole file, or an ImageError."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from tests.images.boundaries import boundaries
from tests.images.kinds import KINDS, written
from tests.images.samples import file_of, png, smooth, textured
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

GENERATOR = np.random.default_rng(0)
HALF = textured(40, 48)
HALF[20:] = 255
CONTENTS = {
    "noise": GENERATOR.integers(0, 256, (40, 48, 3), np.uint8),
    "flat": np.full((40, 48, 3), (200, 30, 90), np.uint8),
    "gradient": smooth(40, 48),
    "half white": HALF,
}


def of_kind(name: str, content: str) -> bytes:
    return written(Image.fromarray(CONTENTS[content]), name)


def cuts(size: int) -> list[int]:
    """Quarters, nine tenths, and places near the end, where palettes, trailers and last strips lie."""
    return sorted(
        {size * share // 100 for share in (10, 25, 50, 75, 90, 97)} | {size - left for left in (1, 2, 12, 40)}
    )


def assert_never_half(data: bytes, damaged: bytes, name: str) -> bool:
    """Return whether the damaged file is refused."""
    try:
        pixels = DecodeAdapter()(damaged)
    except ImageError:
        return True
    assert torch.equal(pixels, DecodeAdapter()(data)), name
    return False


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_is_never_half_an_image(name: str, content: str) -> None:
    data = of_kind(name, content)
    refused = [assert_never_half(data, data[:cut], f"cut at {cut} of {len(data)}") for cut in cuts(len(data))]
    assert refused[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_cut_where_a_part_begins_or_ends_is_never_half_an_image(name: str) -> None:
    data = of_kind(name, "half white")
    for cut in {place + aside for place in boundaries(data) for aside in (-1, 0, 1)} - {0}:
        assert_never_half(data, data[:cut], f"cut at {cut} of {len(data)}")


def test_a_palette_cut_where_a_byte_looks_like_its_beginning_is_refused() -> None:
    data = of_kind("palette pcx", "noise")
    for cut in range(len(data) - 768, len(data)):
        assert assert_never_half(data, data[: cut - 769] + b"\x0c" + data[cut - 768 : cut], f"cut at {cut}")


@pytest.mark.parametrize("letter", [b"P1", b"P2", b"P3"])
def test_a_plain_pixmap_that_ends_within_a_number_is_refused(letter: bytes) -> None:
    head = letter + b"\n2 2\n" + (b"" if letter == b"P1" else b"255\n")
    numbers = {b"P1": b"1 0 1 0\n", b"P2": b"1 2 3 123\n", b"P3": b"1 2 3 4 5 6 7 8 9 10 11 123\n"}[letter]
    whole = head + numbers
    for cut in range(len(head), len(whole)):
        assert_never_half(whole, whole[:cut], f"cut at {cut}")
    assert torch.equal(DecodeAdapter()(whole[:-1]), DecodeAdapter()(whole))


@pytest.mark.parametrize(
    "options",
    [{}, {"tile_size": 64}, {"quality": -1}, {"mode": "RGBA"}, {"mode": "L"}],
    ids=["one image", "tiles", "lossless", "alpha", "grey"],
)
def test_a_cut_heic_is_never_half_an_image(options: dict[str, Any]) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    given = dict(options)
    image = Image.fromarray(textured(160, 200)).convert(given.pop("mode", "RGB"))
    data = file_of(image, "HEIF", **given)
    for cut in (*range(len(data) // 10, len(data), len(data) // 9), *cuts(len(data))):
        assert assert_never_half(data, data[:cut], f"cut at {cut} of {len(data)}")
        if "mode" not in options:
            assert_never_half(data, data[:cut] + bytes(len(data) - cut), f"zeros from {cut} of {len(data)}")


def test_a_heic_whose_second_image_is_cut_is_read() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    first, second = (Image.fromarray(textured(96, 128, seed)) for seed in (0, 1))
    data = file_of(first, "HEIF", save_all=True, append_images=[second])
    assert torch.equal(DecodeAdapter()(data[:-200]), DecodeAdapter()(data))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def png_of(parts: list[tuple[bytes, bytes]], wrong: bytes = b"") -> bytes:
    """A PNG of chunks with right checksums, except for chunks called `wrong`."""
    written = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ (name == wrong))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize("content", ["noise", "gradient", "half white"])
@pytest.mark.parametrize("name", ["png", "palette png", "bilevel png"])
def test_a_png_whose_stream_is_damaged_under_right_checksums_is_refused(name: str, content: str) -> None:
    data = of_kind(name, content)
    parts = list(chunks(data))
    at = [kind for kind, _ in parts].index(b"IDAT")
    stream = parts[at][1]
    refused = 0
    for place in range(2, len(stream), max(1, len(stream) // 25)):
        flipped = stream[:place] + bytes([stream[place] ^ 0x55]) + stream[place + 1 :]
        for damaged in (flipped, stream[:place], stream[:place] + bytes(len(stream) - place)):
            refused += assert_never_half(data, png_of([*parts[:at], (b"IDAT", damaged), *parts[at + 1 :]]), str(place))
    assert refused >= 70


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_whose_strip_is_damaged_is_refused(deep: bool) -> None:
    image = Image.fromarray(CONTENTS["noise"][..., 0].astype(np.uint16) * 257 if deep else CONTENTS["noise"])
    data = file_of(image, "TIFF", compression="tiff_deflate")
    with Image.open(io.BytesIO(data)) as opened:
        start, size = opened.tag_v2[273][0], opened.tag_v2[279][0]  # type: ignore[attr-defined]
    for place in range(start + 2, start + size, size // 40):
        damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        assert assert_never_half(data, damaged, str(place))


def test_an_uncompressed_tiff_that_states_too_large_a_strip_is_read() -> None:
    image = Image.fromarray(np.dstack([CONTENTS["noise"], CONTENTS["gradient"][..., 0]]), "RGBA")
    data = file_of(image, "TIFF")
    count = struct.pack("<HHII", 279, 4, 1, 40 * 48 * 4)
    wrong = data.replace(count, struct.pack("<HHII", 279, 4, 1, 35_711_440))
    assert wrong != data and torch.equal(DecodeAdapter()(wrong), DecodeAdapter()(data))
    for cut in cuts(len(wrong)):
        assert_never_half(wrong, wrong[:cut], f"cut at {cut} of {len(data)}")


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (16, 1000), (1000, 700)])
@pytest.mark.parametrize("options", [{}, {"quality": 0, "method": 6}, {"quality": 100}, {"save_all": True}])
def test_a_flat_webp_of_few_bytes_is_read(size: tuple[int, int], options: dict[str, Any]) -> None:
    image = Image.new("RGB", size, (200, 30, 90))
    more = {"append_images": [Image.new("RGB", size)]} if "save_all" in options else {}
    data = file_of(image, "WEBP", **options, **more)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(DecodeAdapter()(data).permute(1, 2, 0).numpy(), expected)


def test_an_interlaced_png_is_read() -> None:
    """Adam7 on 3 × 2 pixels: passes 1, 4, 5, 6 and 7 hold pixels, in rows of 1, 1, 0, 1 + 1 and 3 (ISO 15948, 8.2)."""
    rows = [[10], [30], [20], [40, 50, 60]]
    header = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 1)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    pixels = DecodeAdapter()(png_of([(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]))
    assert pixels[0].tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize("wrong", [b"iCCP", b"tEXt", b"pHYs", b"eXIf", b"gAMA"])
def test_a_png_with_a_damaged_chunk_beside_its_pixels_is_read(wrong: bytes) -> None:
    data = png(CONTENTS["noise"], 8, 2)
    header, *rest = chunks(data)
    read = DecodeAdapter().decode(png_of([header, (wrong, b"\1\2\3"), *rest], wrong))
    assert torch.equal(read.pixels, DecodeAdapter()(data))
    assert any(wrong.decode() in repair for repair in read.repairs)
    assert torch.equal(DecodeAdapter()(png_of([header, (wrong, b"\1\2\3"), *rest])), DecodeAdapter()(data))


def test_a_png_with_a_wrong_checksum_over_an_intact_stream_is_read() -> None:
    data = png(CONTENTS["noise"], 8, 2)
    read = DecodeAdapter().decode(png_of(list(chunks(data)), b"IDAT"))
    assert torch.equal(read.pixels, DecodeAdapter()(data)) and "IDAT" in read.repairs[0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_damaged_later_frame_does_not_touch_the_first(kind: str) -> None:
    frames = [Image.fromarray(textured(40, 48, seed)) for seed in range(3)]
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
    first = DecodeAdapter()(data)
    cut = data[: len(data) * 5 // 6] if kind != "WEBP" else data[:-300] + bytes(300)
    assert torch.equal(DecodeAdapter()(cut), first)


def test_truncated_files_are_refused_even_where_pillow_may_load_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("png", "gif", "tiff", "bmp", "ppm", "tga"):
        data = of_kind(name, "noise")
        with pytest.raises(ImageError):
            DecodeAdapter()(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_decoders_write_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("jpeg tiff", "tiff in strips", "jpeg 2000", "png", "jpeg"):
        data = of_kind(name, "noise")
        for cut in cuts(len(data)):
            assert_never_half(data, data[:cut], name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_a_png_stream_must_hold_exactly_its_rows(mode: str) -> None:
    """Rows of any colour, also of the one by which the reader tells rows that were never written."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    colour = {"L": 0, "P": 3, "LA": 4, "RGB": 2, "RGBA": 6}[mode]
    palette = [(b"PLTE", bytes(range(256)) * 3)] if mode == "P" else []
    for pixel in ((0, 0, 0, 0), (201, 254, 3, 77), (9, 8, 7, 255)):
        row = b"\0" + bytes(pixel[:bands]) * 5
        header = (b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, colour, 0, 0, 0))

        def of(rows: bytes, cut: int = 0, header: Any = header) -> bytes:
            stream = zlib.compress(rows)
            return png_of([header, *palette, (b"IDAT", stream[: len(stream) - cut]), (b"IEND", b"")])

        whole = DecodeAdapter()(of(row * 4))
        with Image.open(io.BytesIO(of(row * 4))) as image:
            expected = np.asarray(image.convert("RGBA")).astype(float)
        weight = expected[..., 3:] / 255
        assert np.abs(expected[..., :3] * weight + 255 * (1 - weight) - whole.permute(1, 2, 0).numpy()).max() <= 0.51
        assert torch.equal(DecodeAdapter()(of(row * 5)), whole) and torch.equal(
            DecodeAdapter()(of(row * 4 + b"1")), whole
        )
        for broken in (of(row * 3), of(row * 4, cut=1), of(row * 4, cut=5), of(row * 4 + row[:-1], cut=1)):
            with pytest.raises(ImageError, match="IDAT"):
                DecodeAdapter()(broken)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_deflate"}, {"compression": "tiff_deflate", 317: 2}])
def test_an_ordinary_tiff_is_read_as_pillow_reads_it(mode: str, options: dict[Any, Any]) -> None:
    given = dict(options)
    tags = {317: given.pop(317)} if 317 in given else {}
    data = file_of(Image.fromarray(textured(70, 48)).convert(mode), "TIFF", strip_size=2000, tiffinfo=tags, **given)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(DecodeAdapter()(data).permute(1, 2, 0).numpy(), expected)
