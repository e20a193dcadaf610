"""DICOM files with one image: rescaled and windowed as PS3.3 says, or refused with the reason."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from tests.images.samples import Array, smooth, textured
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter
from visionadapt.images.image_files import picture_header

pydicom = pytest.importorskip("pydicom")
EXPLICIT, DEFLATED, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.80"
GREY = np.arange(40 * 30).reshape(40, 30)


def dicom(samples: Array | None, bits: int = 0, syntax: str = EXPLICIT, **elements: Any) -> bytes:
    """A DICOM file of samples [H, W] or [H, W, 3], little-endian."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    found.Modality, found.PatientName = "CT", "A^B"
    if samples is not None:
        container = 8 * samples.dtype.itemsize
        found.Rows, found.Columns = samples.shape[:2]
        found.SamplesPerPixel = 1 if samples.ndim == 2 else 3
        found.PhotometricInterpretation = "MONOCHROME2" if samples.ndim == 2 else "RGB"
        found.BitsAllocated, found.BitsStored, found.HighBit = container, bits or container, (bits or container) - 1
        found.PixelRepresentation = int(samples.dtype.kind == "i")
        found.PlanarConfiguration = 0
        found.add_new(0x7FE00010, "OW" if container > 8 else "OB", np.ascontiguousarray(samples).tobytes())
    for name, value in elements.items():
        setattr(found, name, value)
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True, overwrite=True) if syntax != JPEG_LS else _encapsulated(
        found, buffer
    )
    return buffer.getvalue()


def _encapsulated(found: Any, buffer: io.BytesIO) -> None:
    found.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(60)])
    found["PixelData"].is_undefined_length = True
    found.save_as(buffer, enforce_file_format=True, overwrite=True)


def grey(data: bytes, **settings: Any) -> Array:
    pixels = DecodeAdapter(**settings)(data).numpy()
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()
    return np.asarray(pixels[0])


def eight(values: Array, low: float, high: float) -> Array:
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def test_the_bits_that_are_stored_are_the_range() -> None:
    samples = (GREY * 3).astype(np.uint16)
    assert np.array_equal(grey(dicom(samples, 12)), eight(samples, 0, 4095))
    inverted = dicom(samples, 12, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey(inverted), 255 - eight(samples, 0, 4095))
    small = (GREY % 256).astype(np.uint8)
    assert np.array_equal(grey(dicom(small)), small)


def test_a_window_is_applied_after_the_rescaling() -> None:
    """PS3.3, C.11.2.1.2.1: ((x − (c − 0.5)) / (w − 1) + 0.5) · 255 between its ends."""
    samples = (GREY - 300).astype(np.int16)
    data = dicom(samples, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[40, 900], WindowWidth=[400, 9])
    units = samples * 2.0 - 100
    expected = np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(grey(data) - expected).max() <= 0.51
    assert np.abs(grey(data, sample_range=(-700, 2000)) - eight(units, -700, 2000).astype(int)).max() <= 1
    extent = DecodeAdapter().extent(data)
    assert extent is not None and (extent.low, extent.high) == (-160, 239)
    plain = DecodeAdapter().extent(dicom(samples, RescaleSlope=2, RescaleIntercept=-100))
    assert plain is not None and (plain.low, plain.high) == (units.min(), units.max())
    with pytest.raises(ImageError, match="sample_range"):
        DecodeAdapter(sample_range="declared")(dicom(samples))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padding", "written"), [("u2", 63536, 63536), ("i2", -2000, 63536), ("i2", -2000, -2000)]
)
def test_padding_is_as_dark_as_the_darkest_sample(kind: str, dtype: str, padding: int, written: int) -> None:
    """PS3.3, C.7.5.1.1.2: what lies outside a scanner's field of view takes no part in the contrast."""
    samples = (GREY - (300 if dtype == "i2" else 0)).astype(dtype)
    samples[:, :5] = padding
    inside = samples[:, 5:].astype(int)
    data = dicom(samples, PhotometricInterpretation=kind, RescaleIntercept=-24)
    found = pydicom.dcmread(io.BytesIO(data))
    found.add_new(0x00280120, "US" if written > 32767 else "SS", written)
    buffer = io.BytesIO()
    found.save_as(buffer)
    extent = DecodeAdapter().extent(buffer.getvalue())
    assert extent is not None and (extent.low, extent.high) == (inside.min() - 24, inside.max() - 24)
    read = grey(buffer.getvalue(), sample_range=(extent.low, extent.high))
    expected = eight(inside - 24, extent.low, extent.high)
    assert np.array_equal(read[:, 5:], 255 - expected if kind == "MONOCHROME1" else expected)
    assert (read[:, :5] == 0).all()


def test_a_padding_range_and_an_image_of_padding_alone() -> None:
    samples = np.full((40, 30), 5, np.uint16)
    samples[:20] = 900 + np.arange(30)
    found = pydicom.dcmread(io.BytesIO(dicom(samples, 12)))
    found.add_new(0x00280120, "US", 3)
    found.add_new(0x00280121, "US", 7)
    for whole in (samples, np.full_like(samples, 4)):
        found.PixelData = whole.tobytes()
        buffer = io.BytesIO()
        found.save_as(buffer)
        expected = whole.copy()
        expected[20:] = 900 if whole is samples else 4
        assert np.array_equal(grey(buffer.getvalue()), eight(expected, 0, 4095))


def test_colours_and_palettes() -> None:
    colours = textured(20, 30)
    assert np.array_equal(DecodeAdapter()(dicom(colours)).permute(1, 2, 0).numpy(), colours)
    table = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in ("Red", "Green", "Blue")}
    places = {
        f"{name}PaletteColorLookupTableData": np.roll(np.arange(256, dtype=np.uint8), by).tobytes()
        for by, name in enumerate(("Red", "Green", "Blue"))
    }
    index = smooth(20, 30)[..., 0]
    read = DecodeAdapter()(dicom(index, PhotometricInterpretation="PALETTE COLOR", **table, **places)).numpy()
    assert np.array_equal(read, [np.roll(np.arange(256), by)[index] for by in range(3)])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_cut_file_is_refused(bits: int) -> None:
    data = dicom(GREY.astype(f"u{bits // 8}"))
    whole = grey(data)
    for cut in (*range(140, len(data), len(data) // 23), len(data) - 1, len(data) - 2):
        try:
            assert np.array_equal(grey(data[:cut]), whole)
        except ImageError as error:
            assert "DICOM" in error.reason or "truncated" in error.reason, error.reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dicom(None), ["without pixels", "CT"]),
        (dicom(np.zeros((40, 30), np.uint8), NumberOfFrames=4), ["4 frames"]),
        (dicom(np.zeros((40, 30), np.uint8), PhotometricInterpretation="HSV"), ["HSV"]),
        (dicom(np.zeros((40, 30), np.uint8), syntax=DEFLATED), ["deflated"]),
        (dicom(np.zeros((40, 30), np.uint8), syntax=JPEG_LS), ["JPEG-LS"]),
    ],
    ids=["report", "volume", "colours", "deflated", "compressed"],
)
def test_other_files_are_refused_with_the_reason(data: bytes, words: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        DecodeAdapter()(data)
    assert all(word in caught.value.reason for word in ["DICOM", *words]), caught.value.reason
    assert "corrupt" not in caught.value.reason


def test_an_image_of_too_many_pixels_is_refused_and_its_size_is_known() -> None:
    data = dicom(GREY.astype(np.uint8))
    with pytest.raises(ImageError, match="max_pixels"):
        DecodeAdapter(max_pixels=1000)(data)
    header = picture_header(data)
    assert header is not None and (header.width, header.height, header.format) == (30, 40, "DICOM")


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"visionadapt\[dicom\]") as caught:
        DecodeAdapter()(bytes(128) + b"DICM" + bytes(60))
    assert not caught.value.lasting
