"""The sample range of a set: measured once, on what needs it, and the same for every image."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import visionadapt as va
from tests.images.samples import Array, file_of, png, tiff
from visionadapt.core.records import Record
from visionadapt.images import DecodeAdapter, Preprocessing, ResizeAdapter, compose
from visionadapt.sources import FolderSource

PLAIN = compose(ResizeAdapter(8))
BRIGHT = np.linspace(0, 4095, 12 * 16).round().astype(np.uint16).reshape(12, 16)
DIM = BRIGHT // 4


def saved(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        stem, _, suffix = name.rpartition("_")
        path = folder / "class" / f"{stem}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder


def measured(folder: Path, prepare: Preprocessing = PLAIN) -> tuple[object, str]:
    lines: list[str] = []
    result = va.with_measured_range(prepare, folder, workers=0, say=lines.append)
    return result.decode.sample_range, "".join(lines)


def test_one_range_is_measured_for_all_images_and_bands(tmp_path: Path) -> None:
    colour = np.dstack([DIM, DIM, BRIGHT])
    folder = saved(tmp_path, a_png=png(DIM, 16, 0), b_tif=tiff(colour), c_png=png(colour, 16, 2), d_tif=tiff(DIM))
    sample_range, line = measured(folder)
    assert sample_range == (0, 4095)
    assert "0…4095" in line and "4 images" in line and "--sample-range" in line
    prepare = va.with_measured_range(PLAIN, folder)
    assert pickle.loads(pickle.dumps(prepare)) == prepare and Preprocessing.from_json(prepare.to_json()) == prepare
    dim = prepare.decode((folder / "class" / "d.tif").read_bytes())
    assert torch.equal(dim[0], torch.from_numpy(np.floor(DIM / 4095 * 255 + 0.5).astype(np.uint8)))


def test_a_set_of_8_bits_keeps_its_preprocessing(tmp_path: Path) -> None:
    rgb = Image.fromarray(np.zeros((12, 16, 3), np.uint8))
    folder = saved(tmp_path, a_png=file_of(rgb, "PNG"), b_jpg=file_of(rgb, "JPEG"), c_tif=file_of(rgb, "TIFF"))
    lines: list[str] = []
    assert va.with_measured_range(PLAIN, folder, say=lines.append) is PLAIN and not lines


def test_what_declares_its_range_or_cannot_be_used_is_not_measured(tmp_path: Path) -> None:
    five = np.full((12, 16, 5), 60_000, np.uint16)
    declared = {"a_tif": tiff(BRIGHT, 12), "b_pgm": b"P5 2 1 4095\n" + bytes(4)}
    broken = {"c_tif": tiff(BRIGHT * 9)[:300], "d_tif": tiff(five), "e_png": png(BRIGHT, 16, 0)[:70]}
    folder = saved(tmp_path, **declared, **broken)
    assert measured(folder) == (None, "")
    saved(folder, f_tif=tiff(DIM, tags={280: 0, 281: 4095}))
    assert measured(folder)[0] == (0, 4095)
    assert measured(folder, compose(DecodeAdapter(bands=(5, 4, 3)), ResizeAdapter(8)))[0] == (0, 60_000)


def test_alpha_and_a_set_range_are_left_alone(tmp_path: Path) -> None:
    clear = np.dstack([DIM, DIM, DIM, np.full_like(DIM, 65535)])
    folder = saved(tmp_path, a_png=png(clear, 16, 6), b_tif=tiff(clear, tags={338: 2}))
    assert measured(folder)[0] == (0, int(DIM.max()))
    given = compose(DecodeAdapter(sample_range=(0, 9)), ResizeAdapter(8))
    assert measured(folder, given) == ((0, 9), "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        *[(BRIGHT / 4096, (0, 1)), (BRIGHT / 4095 * 700, (0, 700)), (BRIGHT.astype(np.int16) - 1024, (-1024, 3071))],
        *[(BRIGHT // 32, (0, 255)), (BRIGHT + 7000, (7000, 11_095)), (np.zeros_like(BRIGHT), None)],
    ],
)
def test_ranges_of_every_type(tmp_path: Path, values: Array, expected: object) -> None:
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    assert measured(saved(tmp_path, a_tif=tiff(values)))[0] == (expected and pytest.approx(expected))


def test_outliers_and_mixed_kinds_are_told(tmp_path: Path) -> None:
    hot = np.tile(BRIGHT, (9, 9))
    hot[3, 3] = 65_535
    sample_range, line = measured(saved(tmp_path, a_tif=tiff(hot)))
    assert sample_range == (0, 65_535) and "99.9 %" in line and "--sample-range 0,40" in line
    line = measured(saved(tmp_path, b_tif=tiff((BRIGHT / 4095).astype(np.float32))))[1]
    assert "float32" in line and "uint16" in line and "different" in line


def test_damaged_files_are_measured_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    colour = png(np.dstack([BRIGHT, BRIGHT, DIM]), 16, 2)
    damaged = bytearray(colour)
    damaged[-30] ^= 255
    odd = bytearray(tiff(BRIGHT))
    odd[-40:-8] = bytes(32)
    filtered = np.dstack([BRIGHT, BRIGHT, DIM]).astype(">u2").reshape(12, -1)
    raw = b"".join(b"\x09" + row.tobytes() for row in filtered)
    chunks = [(b"IHDR", colour[16:29]), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    bad = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    folder = saved(tmp_path, a_png=bytes(damaged), b_tif=bytes(odd), c_png=colour[:8] + bad, d_png=colour)
    assert measured(folder)[0] == (0, 4095)
    assert capfd.readouterr() == ("", "")


class _Remote:
    """A source that is not local, and counts what is read."""

    classes = ("class",)

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.reads = files, 0

    def __iter__(self) -> Iterator[Record]:
        return (Record(name, labels=("class",)) for name in self.files)

    def read(self, record: Record) -> bytes:
        self.reads += 1
        return self.files[record.key]


def test_jpegs_are_not_read_and_remote_files_hardly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shallow = file_of(Image.new("RGB", (4, 4)), "PNG")
    remote = _Remote({f"{number}.png": shallow for number in range(500)})
    assert va.with_measured_range(PLAIN, remote) is PLAIN and remote.reads <= 32
    remote = _Remote({f"{number}.png": png(BRIGHT, 16, 0) for number in range(40)})
    assert va.with_measured_range(PLAIN, remote).decode.sample_range == (0, 4095)
    folder = saved(tmp_path, a_jpg=file_of(Image.new("RGB", (4, 4)), "JPEG"))
    monkeypatch.setattr(FolderSource, "read", lambda *args: pytest.fail("read"))
    assert va.with_measured_range(PLAIN, folder) is PLAIN
