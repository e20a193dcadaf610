"""Read the samples of a DICOM file with one image, with pydicom: rescaled, and with the range that its window gives."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from visionadapt.errors import ImageError
from visionadapt.images.depth import Declared
from visionadapt.images.samples import Samples

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LONGEST_HEADER = 4096


class Dicom(NamedTuple):
    """The header of a DICOM file: its size, and what it calls itself, such as `MONOCHROME2 of 12 bits`."""

    width: int
    height: int
    kind: str
    data_set: Any


def read_dicom_header(data: bytes, file: str) -> Dicom:
    """Read all but the pixels.

    Raises:
        ImageError: pydicom is not installed, or the file has no image, several, or one of an unknown kind.
    """
    try:
        from pydicom import dcmread
    except ImportError as error:
        reason = "is DICOM, which needs pydicom: pip install 'visionadapt[dicom]', or export it as PNG or TIFF"
        raise ImageError(file, reason, lasting=False) from error
    if _DEFLATED in data[:_LONGEST_HEADER]:
        raise ImageError(file, "is DICOM in the deflated transfer syntax, which is not supported: export it as PNG")
    found = dcmread(io.BytesIO(data))
    if not any(name in found for name in _PIXELS) or not found.get("Rows") or not found.get("Columns"):
        reason = f"is DICOM without pixels ({found.get('Modality') or 'of unknown modality'}), such as a report"
        raise ImageError(file, f"{reason}: leave it out, or export its image as PNG")
    frames, kind = int(found.get("NumberOfFrames") or 1), str(found.get("PhotometricInterpretation"))
    if frames > 1:
        raise ImageError(file, f"is DICOM with {frames} frames: save those that are meant as PNG or TIFF")
    if kind not in _KINDS:
        raise ImageError(file, f"is DICOM in photometric interpretation {kind:.20}: export it as PNG or TIFF")
    told = f"{kind} of {found.get('BitsStored')} bits"
    return Dicom(int(found.Columns), int(found.Rows), told, found)


def read_dicom(header: Dicom, file: str) -> Samples:
    """Decode the image: [H, W, 1 or 3], after the modality's rescaling, with the range of its first window.

    Raises:
        ImageError: its compression needs a library that is not there, or a part of it is missing.
    """
    found = header.data_set
    try:
        values: npt.NDArray[Any] = found.pixel_array
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        syntax = getattr(getattr(found.file_meta, "TransferSyntaxUID", None), "name", "unknown")
        reason = f"is DICOM in transfer syntax {syntax:.60}, which cannot be decoded: export it as PNG or TIFF"
        raise ImageError(file, reason) from error
    if found.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        return Samples(apply_color_lut(values, found)[:, :, :3])
    if values.ndim == 3:
        return Samples(values)
    values = _without_padding(found, values)
    slope, intercept = (float(found.get(name, unset) or unset) for name, unset in _RESCALING)
    rescaled = (slope, intercept) != (1, 0)
    scaled = values.astype(np.float32) * slope + intercept if rescaled else values
    declared = _window(found) or _by_bits(found, slope, intercept)
    return Samples(scaled[:, :, None], declared, inverted=found.PhotometricInterpretation == "MONOCHROME1")


_RESCALING = (("RescaleSlope", 1), ("RescaleIntercept", 0))


def _without_padding(found: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the samples with the darkest of the image in place of padding (PS3.3, C.7.5.1.1.2).

    Padding is what lies outside the round field of view of a CT scanner, far below or above every sample.
    """
    limits = [_first(found.get(name)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = sorted(limit for limit in limits if limit is not None)
    if limits[0] is None:
        return values
    if found.get("PixelRepresentation"):  # some writers give the number of the bits without their sign
        bits = 8 * values.dtype.itemsize
        known = sorted(limit - 2**bits if limit >= 2 ** (bits - 1) else limit for limit in known)
    padding = (values >= known[0]) & (values <= known[-1])
    rest = values[~padding]
    if not padding.any() or not rest.size:
        return values
    darkest = rest.max() if found.PhotometricInterpretation == "MONOCHROME1" else rest.min()
    return np.where(padding, darkest, values)


def _window(found: Any) -> Declared | None:
    """Return the range of the first window (PS3.3, C.11.2.1.2): what is black and white when it is shown."""
    centre, width = (_first(found.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or not width > 1:
        return None
    return Declared(centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2, firm=False)


def _by_bits(found: Any, slope: float, intercept: float) -> Declared | None:
    """Return the range that fewer bits than the container has give unsigned samples."""
    bits = int(found.get("BitsStored") or 0)
    if found.get("PixelRepresentation") or bits in (0, 8, 16, 32) or slope <= 0:
        return None
    return Declared(intercept, intercept + slope * (2**bits - 1))


def _first(value: Any) -> float | None:
    try:
        first = value if isinstance(value, int | float | str) else value[0]
        return float(first) if np.isfinite(float(first)) else None
    except (TypeError, ValueError, IndexError):
        return None
