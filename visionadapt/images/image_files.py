"""The bytes of one picture file → upright uint8 RGB, every failure an `ImageError`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

from visionadapt.errors import ImageError
from visionadapt.images.channels import image_to_rgb, raw_mode
from visionadapt.images.decoder_warnings import without_warnings
from visionadapt.images.formats import READABLE, foreign_reason, kind_of, unread_reason
from visionadapt.images.integrity import check_whole
from visionadapt.images.jpeg import decode_jpeg

Pixels = npt.NDArray[np.uint8]
_ORIENTATION = 0x0112
_DNG_VERSION = 50706
_SUBFILE_TYPE = 254


def decode_rgb(
    data: bytes, background: tuple[int, int, int], max_pixels: int, file: str, least: int = 0
) -> tuple[Pixels, list[str]]:
    """Upright RGB [H, W, 3] of the first picture in `data`, and what was repaired.

    A JPEG comes at a fraction of its size where `least` pixels are given and no side gets shorter than they.

    Raises:
        ImageError: whatever is wrong with it.
    """
    with _only_image_errors(file):
        image = _open(data, file)
        check_whole(data, image, file)
        return upright_rgb(image, background, max_pixels, file, data, least)


def upright_rgb(
    image: Image.Image,
    background: tuple[int, int, int],
    max_pixels: int,
    file: str,
    data: bytes | None = None,
    least: int = 0,
) -> tuple[Pixels, list[str]]:
    """Upright RGB [H, W, 3] of a Pillow image, and what was repaired; `data` is the file it came from, if any.

    Raises:
        ImageError: it is too large, empty, or its pixels cannot be had.
    """
    with _only_image_errors(file):
        _check_size(image.width, image.height, max_pixels, file)
        raw = raw_mode(image)
        frames = _frames(image)
        turned, repairs = _orientation(image)
        pixels, changes = _pixels(image, background, raw, file, data, least)
        _check_size(pixels.shape[1], pixels.shape[0], max_pixels, file)
        left = _orientation(image)[0]
    if turned > 1:
        repairs.append(f"turned upright (EXIF orientation {turned})")
    if frames > 1:
        repairs.append(f"first of {frames} frames")
    return _turn(pixels, left), [*changes, *repairs]


class Header(NamedTuple):
    """What a picture file says of itself: width and height in pixels as stored, before any turning; Pillow's mode and
    format."""

    width: int
    height: int
    mode: str
    format: str


def picture_header(data: bytes) -> Header | None:
    """What the header of a picture file says; None where it cannot be read. No pixel is decoded."""
    try:
        with _only_image_errors("bytes"):
            image = _open(data, "bytes")
            return Header(image.width, image.height, image.mode, str(image.format))
    except ImageError:
        return None


@contextmanager
def _only_image_errors(file: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError, and keep its warnings in."""
    with without_warnings:
        try:
            yield
        except ImageError:
            raise
        except Exception as error:
            lasting = not isinstance(error, MemoryError | Image.DecompressionBombError)
            raise ImageError(file, _reason(error), lasting) from error


def _open(data: bytes, file: str) -> Image.Image:
    kind = kind_of(data)
    foreign = foreign_reason(data) if kind is None else None
    if foreign:
        raise ImageError(file, foreign)
    if kind == "heif":
        _register_heif(file)
    if kind == "avif" and not features.check("avif"):
        reason = "is AVIF, which this Pillow cannot read; install a newer one: pip install -U pillow"
        raise ImageError(file, reason, lasting=False)
    allowed = {"jpeg": ("JPEG",), "heif": ("HEIF",)}.get(kind or "", _readable())
    try:
        image = Image.open(io.BytesIO(data), formats=allowed)
    except UnidentifiedImageError as error:
        raise ImageError(file, unread_reason(data)) from error
    if _is_raw(image):
        raise ImageError(file, "is camera RAW, of which only a thumbnail could be read; develop it to JPEG or TIFF")
    return image


def _is_raw(image: Image.Image) -> bool:
    """Whether a TIFF is a DNG, or its first page is a reduced copy of another, as in NEF and ARW."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE) == 1


@cache
def _readable() -> tuple[str, ...]:
    """The readable formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in READABLE if name in Image.OPEN)


def _register_heif(file: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        reason = "is HEIC/HEIF, which needs pillow_heif: pip install 'visionadapt[heif]'"
        raise ImageError(file, reason, lasting=False) from error
    pillow_heif.register_heif_opener()


def _check_size(width: int, height: int, max_pixels: int, file: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(file, f"has no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise ImageError(file, f"has {width}×{height} pixels, more than the limit max_pixels={max_pixels:,}")


def _orientation(image: Image.Image) -> tuple[int, list[str]]:
    """The EXIF orientation 1–8, 1 where none or an invalid one is given, and a note where EXIF is broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return 1, ["broken EXIF ignored"]
    return (value if isinstance(value, int) and 1 <= value <= 8 else 1), []


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1


def _pixels(
    image: Image.Image, background: tuple[int, int, int], raw: str, file: str, data: bytes | None, least: int
) -> tuple[Pixels, list[str]]:
    if data is not None and image.format in ("JPEG", "MPO"):
        decoded = decode_jpeg(data, image, file, least)
        if decoded is not None:
            return decoded
    image.load()
    return image_to_rgb(image, background, raw, file)


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Make a picture stored in EXIF `orientation` upright (CIPA DC-008, tag 274)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"has more pixels than Pillow allows ({limit:,}, set by PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    words = " ".join(str(error).split())[:160] or type(error).__name__
    return f"truncated or corrupt: {words}"
