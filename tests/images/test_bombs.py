"""Small files that are large or slow to decode: each is measured in a process of its own."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import forked
from tests.images import bombs
from tests.images.samples import file_of
from tests.once import made_once
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

MEGABYTES = 2**20


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    made = {**bombs.ACCEPTED, **bombs.CHEAP}

    def measure(folder: Path) -> None:
        for number, make in enumerate(made.values()):
            (folder / str(number)).write_bytes(make())
        paths = [str(folder / str(number)) for number in range(len(made))]
        (folder / "costs.jsonl").write_text(forked.run("tests.images.bombs", *paths, timeout=600).stdout)

    costs = (made_once(tmp_path_factory, "bombs", measure) / "costs.jsonl").read_text()
    return dict(zip(made, map(json.loads, costs.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs.ACCEPTED)
def test_decoding_takes_a_bounded_number_of_bytes_a_pixel(measured: dict[str, dict[str, Any]], name: str) -> None:
    cost = measured[name]
    assert cost["outcome"] == str((3, bombs.SIDE, bombs.SIDE))
    assert cost["mb"] <= 16 * bombs.SIDE**2 / MEGABYTES + 100


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs.CHEAP)
def test_a_bomb_costs_next_to_nothing(measured: dict[str, dict[str, Any]], name: str) -> None:
    assert measured[name]["mb"] <= 300
    assert measured[name]["seconds"] <= 10


@pytest.mark.parametrize(("make", "words"), [(bombs.many_scans, "scans"), (bombs.many_pages, None)])
def test_scans_are_refused_and_pages_are_not(make: Any, words: str | None) -> None:
    if words is None:
        decoded = DecodeAdapter().decode(make(20_000))
        assert decoded.pixels.shape == (3, 8, 8) and any("10,000" in repair for repair in decoded.repairs)
        return
    with pytest.raises(ImageError, match=words):
        DecodeAdapter()(make(1000))


def test_a_progressive_jpeg_with_usual_scans_is_read() -> None:
    for count in (1, 15):
        assert DecodeAdapter()(bombs.many_scans(count)).shape == (3, 1600, 1600)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_further_scans_of_a_sequential_jpeg_cost_nothing(mode: str) -> None:
    data = file_of(Image.new(mode, (1600, 1600)), "JPEG")
    last = data.rindex(b"\xff\xda")
    longer = data[:last] + data[last:-2] * 2000 + data[-2:]
    began = time.process_time()
    with suppress(ImageError):
        assert DecodeAdapter()(longer).shape == (3, 1600, 1600)
    assert time.process_time() - began < 5


def test_random_bytes_behind_a_jpeg_are_no_scans() -> None:
    """A phone may append a film to a photograph."""
    data = file_of(Image.new("RGB", (64, 64)), "JPEG")
    film = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes() + b"\xff\xda\0\2" * 3000
    assert DecodeAdapter()(data + film).shape == (3, 64, 64)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_a_large_image_has_the_pixels_of_its_parts(mode: str) -> None:
    """2,000 × 3,000 pixels are converted in several strips; each half is one strip or differs in where they lie."""
    generator = np.random.default_rng(0)
    bands = {"LA": 2, "RGB": 3, "YCbCr": 3, "HSV": 3, "RGBA": 4, "CMYK": 4}.get(mode, 1)
    if mode in ("I;16", "I", "F"):
        values = generator.integers(0, 65536, (2000, 3000)).astype({"I;16": "<u2", "I": "i4", "F": "f4"}[mode])
        values[::700] = 65535
        values[1::700] = 0
        whole = Image.fromarray(values)
    else:
        size = (3000, 2000)
        flat = generator.integers(0, 256, 6_000_000 * bands if mode != "1" else 750_000, np.uint8)
        whole = Image.frombytes(mode, size, flat.tobytes())
    decode = DecodeAdapter()
    expected = np.asarray(decode(whole))
    for top in (0, 900):
        part = whole.crop((0, top, 3000, top + 1001))
        assert np.array_equal(expected[top : top + 1001], np.asarray(decode(part)))


def test_an_icon_is_held_to_the_limit_by_what_it_holds() -> None:
    data = bombs.icon(bombs.flat_png(1500, 1500, 1, 0))
    with pytest.raises(ImageError, match=r"1500×1500.*max_pixels=1,000,000"):
        DecodeAdapter(max_pixels=1_000_000)(data)
