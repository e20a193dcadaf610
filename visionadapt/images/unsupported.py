"""Explain from its header why an intact file cannot be decoded: kinds of JPEG, TIFF, BMP and PSD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from visionadapt.images.limits import jpeg_markers
from visionadapt.images.tiff import read_header

_CONVERT = "which is not supported: save it as PNG or as a usual JPEG"
_JPEG_KINDS = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCD, 0xCE), "arithmetic-coded"),
    0xF7: "JPEG-LS",
}
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_TIFF_COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    6: "old-style JPEG",
    7: "JPEG",
    8: "Deflate",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32773: "PackBits",
    32809: "ThunderScan",
    32946: "Deflate",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogL",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_DECODED = (2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000)
"""TIFF compressions that Pillow's own libtiff reads."""

_TIFF_COLOURS = {
    0: "grey, 0 is white",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_PSD_COLOURS = {0: "bitmap", 1: "grey", 2: "palette", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}


def unsupported_reason(data: bytes) -> str | None:
    """Name the kind of a file that is not supported, and what to do; None where nothing but damage explains a failure.

    Call it only for files that could not be decoded: some of these kinds are read by some builds of the decoders.
    """
    for signature, explain in _EXPLAIN:
        if data.startswith(signature):
            return explain(data)
    return None


class Frame(NamedTuple):
    """The frame header of a JPEG: its marker, bits per sample, height, width and number of components."""

    marker: int
    bits: int
    height: int
    width: int
    components: int


def jpeg_frame(data: bytes) -> Frame | None:
    """Read the frame header of a JPEG (ITU T.81, B.2.2); None where there is none before the first scan."""
    for marker, start, end in jpeg_segments(data):
        if marker in _FRAMES and end - start >= 6:
            height, width = int.from_bytes(data[start + 1 : start + 3]), int.from_bytes(data[start + 3 : start + 5])
            return Frame(marker, data[start], height, width, data[start + 5])
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, first and last byte of the content of each segment up to the first scan, past bytes in between."""
    for segment in jpeg_markers(data):
        yield segment
        if segment[0] == 0xDA:
            return


def _jpeg(data: bytes) -> str | None:
    frame = jpeg_frame(data)
    if frame is None:
        return None
    kind = _JPEG_KINDS.get(frame.marker)
    if kind is None and frame.bits == 8 and frame.components in (1, 3, 4):
        return None
    return f"is a JPEG ({kind or 'extended'}) with {frame.components} bands of {frame.bits} bits, {_CONVERT}"


def _tiff(data: bytes) -> str | None:
    header = read_header(data)
    if header is None:
        return None
    if data.startswith(b"MM\0+"):
        return f"is a big-endian BigTIFF with {header.kind}, which is not supported: save it as TIFF"
    compression, colours = header.tags.get(259, 1), header.photometric
    usual = colours in (0, 1, 2, 3, 5, 6, 8) and (compression == 1 or compression in _DECODED)
    if usual and (colours in (0, 1, 2) or header.bands == {3: 1, 5: 4, 6: 3, 8: 3}[colours]):
        return None
    names = _TIFF_COLOURS.get(colours, f"photometric interpretation {colours}")
    packed = _TIFF_COMPRESSIONS.get(compression, f"number {compression}")
    return f"is a TIFF with {header.kind} ({names}; compression {packed}), which is not supported: save it as PNG"


def _bmp(data: bytes) -> str | None:
    size = int.from_bytes(data[14:18], "little")
    at = 24 if size == 12 else 28
    bits = int.from_bytes(data[at : at + 2], "little")
    compression = int.from_bytes(data[30:34], "little") if size >= 40 else 0
    if compression in (3, 6):
        masks = [int.from_bytes(data[at : at + 4], "little").bit_count() for at in (54, 58, 62)]
        return f"is a BMP of {bits} bits with {masks[0]}, {masks[1]} and {masks[2]} bits per band, {_CONVERT}"
    if compression in (4, 5) and bits != 24:
        return f"is a BMP that holds a {'JPEG' if compression == 4 else 'PNG'}, {_CONVERT}"
    if size in (12, 40, 64, 108, 124) and (compression > 2 or bits not in (1, 4, 8, 16, 24, 32)):
        return f"is a BMP of {bits} bits in compression {compression}, {_CONVERT}"
    return None


def _psd(data: bytes) -> str | None:
    bands, bits, colours = (int.from_bytes(data[at : at + 2]) for at in (12, 22, 24))
    name = _PSD_COLOURS.get(colours, f"colour mode {colours}")
    if data[4:6] == b"\0\2":
        return f"is a large Photoshop document (PSB) with {bands} bands of {bits} bits, {_CONVERT}"
    if bits in (16, 32) or (bits == 8 and colours not in (1, 2, 3, 4, 8, 9)):
        return f"is a PSD with {bands} bands of {bits} bits ({name}), {_CONVERT}"
    return None


_EXPLAIN = (
    (b"\xff\xd8\xff", _jpeg),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"BM", _bmp),
    (b"8BPS", _psd),
)
