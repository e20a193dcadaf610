"""Read image files whose samples Pillow would cut to 8 bits or to four bands: TIFF, 16-bit PNG, deep JPEG 2000."""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from visionadapt.errors import ImageError
from visionadapt.images.channels import Conversion, Pixels, Repaired, array_to_rgb
from visionadapt.images.depth import Declared, to_uint8
from visionadapt.images.limits import Pages
from visionadapt.images.strips import by_strips, over, strips
from visionadapt.images.tiff import CMYK, MIN_IS_WHITE, PREMULTIPLIED, Tiff, read_samples

_GREY = 0
_CODESTREAM = b"\xff\x4f\xff\x51"
_BYTES_PER_PIXEL = 8


class Samples(NamedTuple):
    """The samples of an image as stored.

    Attributes:
        values: [H, W, bands], in any dtype.
        declared: what the file says about their range.
        inverted: whether the lowest value is white.
        alpha: whether the last of 2 or 4 bands is transparency.
    """

    values: npt.NDArray[Any]
    declared: Declared | None = None
    inverted: bool = False
    alpha: bool = True


def samples_to_rgb(samples: Samples, to: Conversion, file: str) -> Repaired:
    """Convert samples to uint8 [H, W, 3], and list what was repaired; raise ImageError as `array_to_rgb` does."""
    if not samples.inverted:
        return array_to_rgb(samples.values, to, file, samples.declared, samples.alpha)
    if samples.values.shape[2] == 2 and to.bands is None:
        raise ImageError(file, "is a TIFF with transparency in which 0 is white, which is not supported")
    pixels, repairs = array_to_rgb(samples.values, to, file, samples.declared, samples.alpha)
    return over(pixels, lambda part: 255 - part), repairs


def read_stored(data: bytes, image: Image.Image, file: str) -> Samples | None:
    """Read the samples of a PNG or JPEG 2000 that Pillow has opened; None where Pillow's pixels are as good.

    Raises:
        ImageError: they cannot be decoded.
    """
    if not is_stored(data, image):
        return None
    if image.format == "PNG":
        _check_loads(data)
        significant = _significant_bits(data)
        # OpenCV adds the alpha of a transparent colour, and holds all bits twice
        values = _by_opencv(data, image, file) if "transparency" in image.info else _by_torchvision(data, file)
        return Samples(values, None if significant is None else _declared(values, significant))
    return Samples(_by_opencv(data, image, file), Declared(0, 2 ** _jpeg2000_bits(data) - 1))


def is_stored(data: bytes, image: Image.Image) -> bool:
    """Whether `read_stored` reads a file that Pillow has opened."""
    if image.format == "PNG":
        return data[24:25] == b"\x10" and (data[25] != _GREY or _significant_bits(data) is not None)
    return image.format == "JPEG2000" and _jpeg2000_bits(data) > 8


class Read(NamedTuple):
    """A decoded TIFF: pixels uint8 [H, W, 3] as stored, repairs, EXIF orientation, and the number of pages."""

    pixels: Pixels
    repairs: list[str]
    orientation: int
    pages: Pages


def read_tiff(header: Tiff, data: bytes, to: Conversion, file: str) -> Read:
    """Decode a TIFF that is not plain, or of which bands are chosen.

    Raises:
        ImageError: it has other bands than colours and transparency, and none are chosen; or it cannot be decoded.
    """
    if to.bands is None and not header.colours:
        reason = f"is a TIFF with {header.kind} in photometric interpretation {header.photometric}"
        raise ImageError(file, f"{reason}, which is not supported; save it as RGB or grey")
    if to.bands is None and not header.is_explained:
        reason = f"is a TIFF with {header.kind}, and no tag says which are red, green and blue"
        if header.bands == header.colours + 1:
            reason = f"is a TIFF with {header.kind}, and no tag says that the last is transparency"
        numbers = "3,2,1" if header.bands > 2 else "1"
        raise ImageError(file, f"{reason}: pass bands={numbers} (--bands {numbers}) to take these, numbered from 1")
    values = read_samples(header, data, _BYTES_PER_PIXEL * to.max_pixels, file)
    if header.has_alpha and header.extra[0] == PREMULTIPLIED and to.bands is None:
        opaque = _opaque(header, values.dtype, to)
        for rows in strips(len(values), values[0].size):
            values[rows] = _straight(values[rows], opaque)
    inverted = header.photometric == MIN_IS_WHITE
    if header.photometric == CMYK and to.bands is None:
        inks, note = _inks(values, header, to, file)
        del values  # before its pixels take room too
        pixels, repairs = _inks_to_rgb(*inks), [*note, "CMYK converted to RGB"]
    else:
        samples = Samples(values, header.declared, inverted, header.has_alpha)
        pixels, repairs = samples_to_rgb(samples, to, file)
    return Read(pixels, repairs, header.orientation, header.pages)


def _straight(values: npt.NDArray[Any], opaque: float) -> npt.NDArray[Any]:
    """Divide premultiplied colours by their alpha, whose largest value is `opaque`; 0 where alpha is 0."""
    alpha = values[:, :, -1:].astype(np.float64)
    colours = values[:, :, :-1].astype(np.float64) * opaque / np.where(alpha > 0, alpha, np.inf)
    colours = np.minimum(colours, opaque)
    straight = colours if values.dtype.kind == "f" else np.floor(colours + 0.5)
    return np.dstack([straight.astype(values.dtype), values[:, :, -1]])


def _opaque(header: Tiff, dtype: np.dtype[Any], to: Conversion) -> float:
    """Return the largest value of transparency: of the range if there is one, else of the container."""
    if header.declared is not None:
        return header.declared.high
    if isinstance(to.sample_range, tuple):
        return to.sample_range[1]
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def _inks(values: npt.NDArray[Any], header: Tiff, to: Conversion, file: str) -> tuple[tuple[Pixels, Pixels], list[str]]:
    """Return the first three inks uint8 [H, W, 3] and the last [H, W, 1], and how their samples were scaled."""
    first, note = to_uint8(values[:, :, :3], file, header.declared, to.sample_range)
    last, _ = to_uint8(values[:, :, 3:4], file, header.declared, to.sample_range)
    return (first, last), [note] if note else []


def _inks_to_rgb(first: Pixels, last: Pixels) -> Pixels:
    def converted(rows: slice) -> Pixels:
        inks = np.dstack([first[rows], last[rows]])
        image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
        return np.asarray(image.convert("RGB"))

    return by_strips(first.shape[0], first.shape[1], converted)


def _check_loads(data: bytes) -> None:
    """Raise Pillow's error where OpenCV would print one."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.load()


def _by_torchvision(data: bytes, file: str) -> npt.NDArray[Any]:
    """Decode a PNG to [H, W, bands], all bits kept, in no memory beside them."""
    from torchvision.io import ImageReadMode, decode_png

    try:
        values = decode_png(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise ImageError(file, "truncated or corrupt PNG: its pixels cannot be decoded") from error
    return np.asarray(values.permute(1, 2, 0).numpy())


def _by_opencv(data: bytes, image: Image.Image, file: str) -> npt.NDArray[Any]:
    """Decode with OpenCV to [H, W, bands] in RGB order, all bits kept."""
    cv2 = _opencv()
    values: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[:2] != (image.height, image.width):
        raise ImageError(file, f"truncated or corrupt {image.format}: its pixels cannot be decoded")
    values = values.reshape(*values.shape[:2], -1)
    if values.shape[2] == 4 and len(image.getbands()) == 2:
        return np.ascontiguousarray(values[:, :, 2:])
    for rows in strips(len(values), values[0].size) if values.shape[2] > 2 else ():
        values[rows, :, :3] = values[rows, :, 2::-1]
    return values


@cache
def _opencv() -> Any:
    """Return OpenCV, loaded on first use, which writes nothing to standard error."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _significant_bits(data: bytes) -> int | None:
    """Return the most bits that a PNG's sBIT chunk calls significant; None where it has none before its pixels."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            return None
        if name == b"sBIT" and 1 <= length <= 4:
            bits = max(data[at + 8 : at + 8 + length])
            return bits if 8 < bits < 16 else None
        at += 12 + length
    return None


def _declared(values: npt.NDArray[Any], bits: int) -> Declared:
    """Return the range of 16-bit samples of which some bits are significant.

    ISO 15948 wants samples scaled to all 16 bits; some writers leave them in the lower ones, as they were.
    """
    low_bits = (1 << (16 - bits)) - 1
    as_they_were = int(values.max()) < 1 << bits and bool((values & low_bits).any())
    return Declared(0, (1 << bits) - 1 if as_they_were else 65535)


def _jpeg2000_bits(data: bytes) -> int:
    """Return the most bits per sample of a JPEG 2000, from its SIZ marker; 0 where it has none."""
    at = data.find(_CODESTREAM, 0, 65536)
    if at < 0:
        return 0
    bands = int.from_bytes(data[at + 40 : at + 42], "big")
    depths = data[at + 42 : at + 42 + 3 * bands : 3]
    return max(((depth & 127) + 1 for depth in depths), default=0)
