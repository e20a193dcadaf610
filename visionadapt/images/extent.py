"""Measure which sample values an image file uses, where the file itself does not fix their range."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.images.channels import Conversion, chosen_bands
from visionadapt.images.decoder_globals import strict_decoders
from visionadapt.images.dicom import read_dicom, read_dicom_header
from visionadapt.images.formats import is_dicom
from visionadapt.images.png import SIGNATURE, checked_png
from visionadapt.images.samples import Samples, read_stored
from visionadapt.images.tiff import Tiff, read_header, read_samples

_SHALLOW = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".apng", ".webp", ".bmp", ".dib", ".heic", ".heif", ".avif", ".qoi"}
    | {".tga", ".ico", ".pbm", ".pgm", ".ppm", ".jp2", ".j2k"}
)
"""Suffixes of formats with 8 bits per sample, or whose files always declare their range."""
_SAMPLED = 65_536


class Extent(NamedTuple):
    """The values that an image's samples take.

    Attributes:
        dtype: how they are stored, such as `uint16`.
        low, high: smallest and largest.
        most: the value that 99.9 % of them do not exceed.
    """

    dtype: str
    low: float
    high: float
    most: float


def may_be_deep(name: str) -> bool:
    """Whether a file of this name may hold samples whose range only measuring tells."""
    return PurePosixPath(name).suffix.lower() not in _SHALLOW


def extent_of(data: bytes, to: Conversion) -> Extent | None:
    """Measure an image file; None for one of 8 bits, with a declared range, or that cannot be used."""
    with strict_decoders:
        try:
            values = _undeclared(data, to) if _is_deep(data) else None
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            return None
    if isinstance(values, Extent) or values is None:
        return values
    low, high = values.min().item(), values.max().item()
    if not np.isfinite((low, high)).all():
        return None
    flat = values.reshape(-1)
    most = float(np.quantile(flat[:: 1 + len(flat) // _SAMPLED], 0.999))
    return Extent(str(values.dtype), low, high, most)


def _is_deep(data: bytes) -> bool:
    """Whether the header allows samples of more than 8 bits, or in a type that does not fix their range."""
    if is_dicom(data):
        return True
    if data.startswith(SIGNATURE):
        return data[24:25] == b"\x10"
    header = read_header(data)
    return data.startswith(b"Pf") if header is None else not header.is_plain


def _undeclared(data: bytes, to: Conversion) -> npt.NDArray[Any] | Extent | None:
    """Return the samples of the colours, or the range in a TIFF's tags; None where the format fixes the range."""
    if is_dicom(data):
        return _of_dicom(data, to)
    header = read_header(data)
    if header is not None:
        return _of_tiff(header, data, to)
    if data.startswith(SIGNATURE):
        data = checked_png(data, to.max_pixels, "").data
    with Image.open(io.BytesIO(data), formats=("PNG", "PPM")) as image:
        if image.width * image.height > to.max_pixels:
            return None
        stored = read_stored(data, image, "") or Samples(np.asarray(image))
    if stored.declared is not None:
        return None
    has_alpha = stored.values.ndim == 3 and stored.values.shape[2] in (2, 4)
    return stored.values[:, :, :-1] if has_alpha else stored.values


def _of_dicom(data: bytes, to: Conversion) -> npt.NDArray[Any] | Extent | None:
    header = read_dicom_header(data, "")
    if header.width * header.height > to.max_pixels:
        return None
    values, declared, *_ = read_dicom(header, "")
    if declared is None:
        return None if values.dtype == np.uint8 else values
    return None if declared.firm else Extent(str(values.dtype), declared.low, declared.high, declared.high)


def _of_tiff(header: Tiff, data: bytes, to: Conversion) -> npt.NDArray[Any] | Extent | None:
    declared = header.declared
    refused = to.bands is None and not header.is_explained
    if refused or header.width * header.height > to.max_pixels or (declared is not None and declared.firm):
        return None
    if declared is not None:
        return Extent(header.dtype_name, declared.low, declared.high, declared.high)
    values = read_samples(header, data, 8 * to.max_pixels, "")
    if values.dtype == np.uint8:
        return None
    return values[:, :, : header.colours] if to.bands is None else chosen_bands(values, to, "")
