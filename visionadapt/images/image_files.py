"""Decode the bytes of one image file to upright uint8 RGB: format, EXIF orientation, first frame, one error type."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError, features

from visionadapt.errors import ImageError
from visionadapt.images.channels import Conversion, Pixels, Repaired, chosen_bands, image_to_rgb, raw_mode
from visionadapt.images.colour_profiles import inks_to_rgb, pixels_to_srgb, transparent_to_srgb
from visionadapt.images.decoder_globals import strict_decoders
from visionadapt.images.dicom import read_dicom, read_dicom_header
from visionadapt.images.formats import READABLE, foreign_reason, image_format, is_dicom, kind_of, unread_reason
from visionadapt.images.integrity import check_complete
from visionadapt.images.jpeg import cleaned, decode_jpeg, fraction
from visionadapt.images.limits import check_jpeg, check_parts, check_tiff, gif_frames
from visionadapt.images.png import SIGNATURE, checked_png, load_png
from visionadapt.images.samples import is_stored, read_stored, read_tiff, samples_to_rgb
from visionadapt.images.tiff import Tiff, check_layout, read_header
from visionadapt.images.unsupported import unsupported_reason

_ORIENTATION = 0x0112
_DNG_VERSION = 50706
_ICC_PROFILE = 34675
_SUBFILE_TYPE = 254
_COUNTED_BY_PILLOW = 1000
_DAMAGED = "truncated or corrupt"
_UNSUPPORTED = re.compile("unsupported|unimplemented|not (supported|implemented)|cannot handle|unknown", re.IGNORECASE)


def decode_rgb(data: bytes, to: Conversion, file: str, least: int = 0) -> Repaired:
    """Decode the first image in a file to upright RGB [H, W, 3], and list what was repaired.

    With `least` above 0, a JPEG is decoded at a fraction of its size, as in `decode_jpeg`.

    Raises:
        ImageError: the image cannot be used.
    """
    with _only_image_errors(file, data):
        repairs: list[str] = []
        if data.startswith(SIGNATURE):
            data, repairs = checked_png(data, to.max_pixels, file)
        if is_dicom(data):
            return _dicom_rgb(data, to, file)
        header = read_header(data)
        if header is not None and (not header.is_plain or header.is_direct or (to.bands and header.colours)):
            return _tiff_rgb(header, data, to, file)
        image = _open(data, file)
        is_jpeg = image.format in ("JPEG", "MPO")
        share = fraction(image.width, image.height, least) if is_jpeg else 1
        _check_size(-(-image.width // share), -(-image.height // share), to.max_pixels, file, is_jpeg and not least)
        if image.format in ("ICO", "CUR", "ICNS"):
            check_parts(data, to.max_pixels, file)
        if header is not None:
            check_layout(header, data, file)
        check_complete(data, image, file)
        pixels, changes = upright_rgb(image, to, file, data, least)
        return pixels, [*changes, *repairs]


def upright_rgb(image: Image.Image, to: Conversion, file: str, data: bytes | None = None, least: int = 0) -> Repaired:
    """Convert a Pillow image to upright RGB [H, W, 3], and list what was repaired; `data` is its file's bytes, if any.

    Raises:
        ImageError: the image is too large or empty, or its pixels cannot be decoded.
    """
    with _only_image_errors(file, data or b""):
        if data is None:
            _check_size(image.width, image.height, to.max_pixels, file)
        raw = raw_mode(image)
        if data is None and (stored := _unread_bytes(image, raw)):
            return decode_rgb(stored, to, file)
        if image.format == "PNG" and not (data is not None and is_stored(data, image)):
            image.load() if data is None else load_png(image, data, file)  # EXIF would load it and swallow an error
        turned, repairs = _orientation(image)
        pixels, changes = _pixels(image, to, raw, file, data, least)
        _check_size(pixels.shape[1], pixels.shape[0], to.max_pixels, file)
        left = _orientation(image)[0]
        frames = _frames(image, data)
    return _finished(pixels, [*changes, *repairs], (turned, left), frames)


def _unread_bytes(image: Image.Image, raw: str) -> bytes | None:
    """Return the file of a Pillow image that is opened but not loaded, if it may hold more than Pillow reads."""
    file = getattr(image, "fp", None)
    deep = image.format in ("TIFF", "JPEG2000") or (image.format == "PNG" and ";16" in raw)
    if not deep or not file or not getattr(image, "tile", None) or image.tell() != 0:
        return None
    place = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(place)
    return data


def _dicom_rgb(data: bytes, to: Conversion, file: str) -> Repaired:
    header = read_dicom_header(data, file)
    _check_size(header.width, header.height, to.max_pixels, file)
    return samples_to_rgb(read_dicom(header, file), to, file)


def _tiff_rgb(header: Tiff, data: bytes, to: Conversion, file: str) -> Repaired:
    _check_developed(header.tags, file)
    _check_size(header.width, header.height, to.max_pixels, file)
    pixels, repairs, turned, pages = read_tiff(header, data, to, file)
    profile = _profile(header.tags.get(_ICC_PROFILE), to) if header.colours in (1, 3) else None
    pixels, repairs = _in_srgb((pixels, repairs), profile)
    return _finished(pixels, repairs, (turned, turned), [str(pages)] if pages.number > 1 else [])


def _finished(pixels: Pixels, repairs: list[str], orientation: tuple[int, int], frames: list[str]) -> Repaired:
    """Turn pixels upright; `orientation` is the one of the file, and what is left of it to do."""
    turned, left = orientation
    if turned > 1:
        repairs.append(f"turned upright (EXIF orientation {turned})")
    return _upright(pixels, left), [*repairs, *frames]


class Header(NamedTuple):
    """The header of an image file.

    Attributes:
        width: pixels per row as stored, before the EXIF orientation is applied.
        height: rows as stored, before the EXIF orientation is applied.
        mode: Pillow's mode, such as `RGB`; of a TIFF that Pillow does not read as it is stored, `5 bands of uint16`.
        format: Pillow's format, such as `JPEG`.
    """

    width: int
    height: int
    mode: str
    format: str


def picture_header(data: bytes) -> Header | None:
    """Read the header of an image file's bytes without decoding pixels; None where it cannot be read."""
    try:
        with _only_image_errors("bytes"):
            if data.startswith(SIGNATURE):
                data = checked_png(data, 0, "bytes").data
            if is_dicom(data):
                dicom = read_dicom_header(data, "bytes")
                return Header(dicom.width, dicom.height, dicom.kind, "DICOM")
            tiff = read_header(data)
            if tiff is not None and not tiff.is_plain:
                return Header(tiff.width, tiff.height, tiff.kind, "TIFF")
            image = _open(data, "bytes")
            return Header(image.width, image.height, image.mode, str(image.format))
    except ImageError:
        return None


@contextmanager
def _only_image_errors(file: str, data: bytes = b"") -> Iterator[None]:
    """Turn any exception of a decoder of a file's `data` into an ImageError, and make it silent and strict."""
    with strict_decoders:
        try:
            yield
        except ImageError as error:
            told = _with_format(error.reason, data)
            if told == error.reason:
                raise
            raise ImageError(file, told, error.lasting) from error
        except Exception as error:
            lasting = not isinstance(error, MemoryError | Image.DecompressionBombError)
            reason = (lasting and unsupported_reason(data)) or _with_format(_reason(error), data)
            raise ImageError(file, reason, lasting) from error


def _with_format(reason: str, data: bytes) -> str:
    """Return the reason why a file is damaged with the name of its format, if it has a signature."""
    name = image_format(data)
    return (
        reason.replace(f"{_DAMAGED}: ", f"{_DAMAGED} {name}: ", 1) if name and reason.startswith(_DAMAGED) else reason
    )


def _open(data: bytes, file: str) -> Image.Image:
    kind = kind_of(data)
    foreign = foreign_reason(data) if kind is None and not data.startswith(SIGNATURE) else None
    if foreign:
        raise ImageError(file, foreign)
    _check_cost(data, kind, file)
    if kind == "heif":
        _register_heif(file)
    if kind == "avif" and not features.check("avif"):
        reason = "is AVIF, which this Pillow cannot read; install a newer one: pip install -U pillow"
        raise ImageError(file, reason, lasting=False)
    allowed = {"jpeg": ("JPEG",), "heif": ("HEIF",)}.get(kind or "", _readable())
    try:
        try:
            image = _opened(data, allowed)
        except UnidentifiedImageError:
            if kind != "jpeg":
                raise
            image = _opened(cleaned(data), allowed)
    except UnidentifiedImageError as error:
        raise ImageError(file, unsupported_reason(data) or unread_reason(data)) from error
    if image.format == "TIFF":
        _check_developed(getattr(image, "tag_v2", {}), file)
    return image


def _check_cost(data: bytes, kind: str | None, file: str) -> None:
    """Raise ImageError where opening or decoding a file would cost far more than its pixels."""
    if kind == "jpeg":
        check_jpeg(data, file)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        check_tiff(data, file)
    elif data.startswith(b"GIF8"):
        gif_frames(data, file)


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Open a file as `Image.open` does, but leave the limit on pixels to `max_pixels`, which is checked next."""
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        for name in formats:
            factory, accepts = Image.OPEN[name]
            if accepts is None or accepts(data[:16]) is True:
                with suppress(SyntaxError, IndexError, TypeError, struct.error):
                    return factory(io.BytesIO(data), "")
        raise


def _check_developed(tags: Mapping[int, Any], file: str) -> None:
    """Raise ImageError if a TIFF is a DNG, or its first page is a reduced copy of another, as in NEF and ARW."""
    if _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE) == 1:
        raise ImageError(file, "is camera RAW, of which only a thumbnail can be read; develop it to JPEG or TIFF")


@cache
def _readable() -> tuple[str, ...]:
    """Return the formats to try that this build of Pillow has."""
    Image.init()
    return tuple(name for name in READABLE if name in Image.OPEN)


def _register_heif(file: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        reason = "is HEIC/HEIF, which needs pillow_heif: pip install 'visionadapt[heif]'"
        raise ImageError(file, reason, lasting=False) from error
    pillow_heif.register_heif_opener()


def _check_size(width: int, height: int, max_pixels: int, file: str, can_scale: bool = False) -> None:
    if width < 1 or height < 1:
        raise ImageError(file, f"has no pixels ({width}×{height})")
    if width * height > max_pixels:
        limit = f"more than the limit max_pixels={max_pixels:,}"
        way = "raise it (train: --max-pixels)" + ", or decode JPEGs at reduced size (--scaled)" * can_scale
        raise ImageError(file, f"has {width}×{height} pixels, {limit}: {way}")


def _orientation(image: Image.Image) -> tuple[int, list[str]]:
    """Return the EXIF orientation 1–8 (1 where it is missing or invalid), and a repair where EXIF is broken."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1, []
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return 1, ["broken EXIF ignored"]
    return (value if isinstance(value, int) and 1 <= value <= 8 else 1), []


def _frames(image: Image.Image, data: bytes | None) -> list[str]:
    """Return `first of N frames`; a damaged later frame leaves the number open.

    Pillow would go through all of the pages or frames, so those of files with many are counted here.
    """
    if data is not None and image.format in ("TIFF", "GIF"):
        pages = check_tiff(data, "") if image.format == "TIFF" else gif_frames(data, "")
        if pages.number > _COUNTED_BY_PILLOW:
            return [str(pages)]
        if pages.number == 1 and image.format == "GIF":
            return []
    try:
        frames = int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return ["first of several frames, of which a later one is damaged"]
    return [f"first of {frames} frames"] if frames > 1 else []


def _pixels(image: Image.Image, to: Conversion, raw: str, file: str, data: bytes | None, least: int) -> Repaired:
    profile = _profile(image.info.get("icc_profile"), to)
    if data is not None and image.format in ("JPEG", "MPO"):
        decoded = decode_jpeg(data, image, file, least, profile)
        if decoded is not None:
            return decoded if to.bands is None else (chosen_bands(decoded[0], to, file), decoded[1])
    stored = read_stored(data, image, file) if data is not None else None
    if stored is not None:
        return _in_srgb(samples_to_rgb(stored, to, file), profile)
    image.load()
    if data is not None:
        vars(image).pop("_decoder", None)  # of WebP and AVIF: its canvases are twice as large as the image
    if profile and image.mode == "CMYK":
        return inks_to_rgb(image, profile)
    if profile and image.mode == "RGBA":
        converted, notes = transparent_to_srgb(image, profile)
        pixels, repairs = image_to_rgb(converted, to, raw, file)
        return pixels, [*repairs, *notes]
    return _in_srgb(image_to_rgb(image, to, raw, file), None if image.mode in ("LAB", "HSV") else profile)


def _profile(value: object, to: Conversion) -> bytes | None:
    return bytes(value) if to.converts and isinstance(value, bytes | bytearray) and value else None


def _in_srgb(decoded: Repaired, profile: bytes | None) -> Repaired:
    pixels, notes = pixels_to_srgb(decoded[0], profile)
    return pixels, [*decoded[1], *notes]


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels stored in an EXIF orientation upright (CIPA DC-008, tag 274)."""
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
        return f"holds an image of more pixels than Pillow allows ({limit:,}, set by PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    words = " ".join(str(error).split())[:160] or type(error).__name__
    if _UNSUPPORTED.search(words):
        return f"is of a kind that is not supported, or corrupt: {words}; save it as PNG"
    return f"{_DAMAGED}: {words}"
