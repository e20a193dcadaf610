"""Read the samples of a TIFF as stored, with every depth and number of bands; Pillow decompresses them.

Pillow alone drops bands and low bits, and opens only some of these files.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from visionadapt.errors import ImageError
from visionadapt.images.depth import Declared
from visionadapt.images.inflate import Inflater
from visionadapt.images.limits import Pages, check_tiff
from visionadapt.images.strips import rows_of, strips

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
_COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, CMYK: 4}
PREMULTIPLIED = 1
_ALPHA = {PREMULTIPLIED, 2, 999}
"""Values of ExtraSamples that mean transparency: premultiplied, straight, and Corel Draw's."""
_DEFLATE = {8, 32946}
_BY_PILLOW = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_SURPLUS = 2**16
_MOST_PARTS = 2**20
_PADDING = 2**24
"""Pixels that a strip or tile may have beyond twice those of the image."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Tiff:
    """The header of the first page of a TIFF.

    Attributes:
        width, height: pixels, as stored.
        bands: samples per pixel.
        bits: bits per sample; 0 where they differ between the bands.
        sample_format: 1 unsigned, 2 signed, 3 float; others are not brightness.
        photometric: what the first bands mean, such as `RGB`.
        extra: ExtraSamples, what the bands after them mean.
        pages: the number of pages in the file.
        tags: all tags of the first page.
        order: `<` or `>`, the byte order.
    """

    width: int
    height: int
    bands: int
    bits: int
    sample_format: int
    photometric: int
    extra: tuple[int, ...]
    pages: Pages
    tags: ImageFileDirectory_v2
    order: Literal["<", ">"]

    @property
    def colours(self) -> int:
        """Number of bands that the photometric interpretation takes; 0 for one that is read by Pillow only."""
        return _COLOURS.get(self.photometric, 0)

    @property
    def has_alpha(self) -> bool:
        """Whether a tag says that the band after the colours is transparency."""
        return (
            bool(self.colours) and self.bands == self.colours + 1 and self.extra[:1] != () and self.extra[0] in _ALPHA
        )

    @property
    def is_explained(self) -> bool:
        """Whether the tags say what every band means."""
        return bool(self.colours) and (self.bands == self.colours or self.has_alpha)

    @property
    def is_plain(self) -> bool:
        """Whether Pillow reads all of it: up to 8 bits, unsigned, no bands but colours and alpha."""
        whole = self.bits == 8 or (self.bits in (1, 2, 4) and self.bands == 1)
        usual = whole and self.sample_format not in (_SIGNED, _FLOAT)
        return usual and (not self.colours or self.bands <= self.colours or self.has_alpha)

    @property
    def is_direct(self) -> bool:
        """Whether `read_samples` reads an ordinary image as Pillow does, and checks it in the same pass."""
        usual = self.is_plain and self.bits == 8 and self.photometric in (MIN_IS_BLACK, RGB)
        packed = self._one(259, 1) in (1, *_DEFLATE) and self._one(266, 1) == 1
        return usual and packed and self.bands == self.colours and self._one(317, 1) in (1, 2)

    @property
    def orientation(self) -> int:
        """EXIF orientation 1–8."""
        value = self._one(274, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def dtype_name(self) -> str:
        """Type and size of the samples, such as `uint12`."""
        name = {_SIGNED: "int", _FLOAT: "float", 5: "complex int", 6: "complex"}.get(self.sample_format, "uint")
        return f"{name}{self.bits or ' mixed'}"

    @property
    def kind(self) -> str:
        """Bands and type of the samples: `5 bands of uint8`."""
        return f"{self.bands} band{'s' * (self.bands > 1)} of {self.dtype_name}"

    @property
    def declared(self) -> Declared | None:
        """The range of the samples: by bits per sample other than 8, 16 and 32, or by the tags for it."""
        if self.sample_format == _FLOAT:
            low, high = self._ends(340, 341)
            return None if low is None or high is None else Declared(low, high, firm=False)
        if self.sample_format != _SIGNED and self.bits not in (8, 16, 32, 64):
            return Declared(0, 2**self.bits - 1)
        low, high = self._ends(340, 341)
        if high is None and self.sample_format != _SIGNED:
            low, high = self._ends(280, 281)
        if high is None or high <= 255 or (self.sample_format == _SIGNED and low is None):
            return None
        return Declared(0 if self.sample_format != _SIGNED or low is None else low, high, firm=False)

    def _ends(self, lowest: int, highest: int) -> tuple[float | None, float | None]:
        """Return the minimum and the maximum over all bands that two tags give."""
        low, high = _numbers(self.tags, lowest), _numbers(self.tags, highest)
        return (min(low) if low else None), (max(high) if high else None)

    def _one(self, tag: int, default: int) -> int:
        values = _numbers(self.tags, tag)
        return int(values[0]) if values else default


def read_header(data: bytes) -> Tiff | None:
    """Read the header of a TIFF's first page; None where the bytes are no TIFF, or its header is damaged."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        return _header(data)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return None


def read_samples(tiff: Tiff, data: bytes, most_bytes: int, file: str) -> npt.NDArray[Any]:
    """Return the samples of the first page as stored, [H, W, bands], in a dtype that holds them.

    Raises:
        ImageError: their type or compression is not supported, they take more than `most_bytes`, or some are missing.
    """
    dtype = _dtype(tiff, file)
    size = tiff.width * tiff.height * tiff.bands * dtype.itemsize
    if size > most_bytes:
        raise ImageError(file, f"has {tiff.width}×{tiff.height} pixels of {tiff.kind}, more than the limit max_pixels")
    check_layout(tiff, data, file)
    parts = list(_parts(tiff))
    offsets, counts = _places(tiff, len(parts), file)
    samples = np.empty((tiff.height, tiff.width, tiff.bands), dtype)
    view = memoryview(data)
    for part, offset, count in zip(parts, offsets, counts, strict=True):
        columns = slice(part.left, min(part.left + part.columns, tiff.width))
        bands = slice(part.band, part.band + part.bands)
        for top, block in _blocks(tiff, view[offset : offset + count], part, dtype, file):
            rows = slice(part.top + top, min(part.top + top + len(block), tiff.height))
            shown = block[: max(rows.stop - rows.start, 0), : columns.stop - columns.start]
            samples[rows.start : rows.start + len(shown), columns, bands] = shown
    return samples


def check_layout(tiff: Tiff, data: bytes, file: str) -> None:
    """Raise ImageError where the strips or tiles are more, larger or longer than the pixels and the file need."""
    rows, columns = _part_size(tiff)
    if rows < 1 or columns < 1 or rows * columns > 2 * tiff.width * tiff.height + _PADDING:
        raise ImageError(file, f"truncated or corrupt: its strips or tiles have {columns}×{rows} pixels")
    if _planes(tiff) * -(-tiff.height // rows) * -(-tiff.width // columns) > _MOST_PARTS:
        raise ImageError(file, f"truncated or corrupt: its strips or tiles of {columns}×{rows} pixels are too many")
    counts = (min(int(count), len(data)) for tag in (279, 325) for count in _numbers(tiff.tags, tag))
    if sum(counts) > 8 * len(data) + 2**26:
        raise ImageError(file, "truncated or corrupt: its strips or tiles overlap")


def _part_size(tiff: Tiff) -> tuple[int, int]:
    """Return the rows and columns of a strip or tile."""
    if _numbers(tiff.tags, 324):
        rows, columns = tiff._one(323, 0), tiff._one(322, 0)
    else:
        rows, columns = tiff._one(278, tiff.height), tiff.width
    return (min(rows, tiff.height) if columns == tiff.width else rows), columns


def _planes(tiff: Tiff) -> int:
    """Return how many planes the bands are stored in: one each, or one for all."""
    return tiff.bands if tiff._one(284, 1) == 2 else 1


@dataclass(frozen=True)
class _Part:
    """A strip or tile: where it lies in the image, and its size with padding."""

    top: int
    left: int
    rows: int
    columns: int
    band: int
    bands: int


def _header(data: bytes) -> Tiff | None:
    file = io.BytesIO(data)
    tags = ImageFileDirectory_v2(data[: 16 if 43 in (data[2], data[3]) else 8])
    file.seek(tags.next)
    tags.load(file)
    bits = _numbers(tags, 258) or [1]
    formats = _numbers(tags, 339) or [_UNSIGNED]
    bands = int((_numbers(tags, 277) or [len(bits)])[0])
    width, height = (int(_numbers(tags, tag)[0]) for tag in (256, 257))
    same = len(set(bits[:bands])) == 1 and len(set(formats[:bands])) == 1
    if min(width, height, bands) < 1:
        return None
    return Tiff(
        width=width,
        height=height,
        bands=bands,
        bits=int(bits[0]) if same else 0,
        sample_format=int(formats[0]),
        photometric=int((_numbers(tags, 262) or [RGB if bands in (3, 4) else MIN_IS_BLACK])[0]),
        extra=tuple(int(value) for value in _numbers(tags, 338)),
        pages=check_tiff(data, ""),
        tags=tags,
        order="<" if data[:2] == b"II" else ">",
    )


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> list[Any]:
    value = tags.get(tag)
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    numbers = [each for each in values if isinstance(each, int | float) or hasattr(each, "numerator")]
    return [each if isinstance(each, int) else float(each) for each in numbers]


def _dtype(tiff: Tiff, file: str) -> np.dtype[Any]:
    bits = tiff.bits
    if tiff.sample_format == _FLOAT and bits in (16, 32, 64):
        return np.dtype(f"f{bits // 8}")
    if tiff.sample_format == _SIGNED and bits in (8, 16, 32, 64):
        return np.dtype(f"i{bits // 8}")
    if tiff.sample_format in (_UNSIGNED, 4) and (bits in (32, 64) or 1 <= bits <= 16):
        return np.dtype(f"u{max(1, (bits + 7) // 8)}")
    raise ImageError(file, f"is a TIFF with {tiff.kind}, which is not supported: save it with 8, 16 or 32 bits")


def _parts(tiff: Tiff) -> Iterator[_Part]:
    """Yield the strips or tiles in the order in which they are stored."""
    (rows, columns), planes = _part_size(tiff), _planes(tiff)
    for band in range(planes):
        for top in range(0, tiff.height, rows):
            for left in range(0, tiff.width, columns):
                yield _Part(top, left, rows, columns, band, tiff.bands // planes)


def _places(tiff: Tiff, parts: int, file: str) -> tuple[list[int], list[int]]:
    tiled = bool(_numbers(tiff.tags, 324))
    offsets, counts = (_numbers(tiff.tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
    if not counts and parts == 1 and tiff._one(259, 1) == 1:
        counts = [tiff.width * tiff.height * tiff.bands * 8]
    if min(len(offsets), len(counts)) < parts:
        raise ImageError(file, f"truncated or corrupt: its strips do not fill {tiff.width}×{tiff.height} pixels")
    return [int(offset) for offset in offsets[:parts]], [int(count) for count in counts[:parts]]


def _blocks(
    tiff: Tiff, stored: memoryview, part: _Part, dtype: np.dtype[Any], file: str
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield a strip or tile as blocks [rows, columns, bands] with their first rows; the last strip may be shorter."""
    tiled = bool(_numbers(tiff.tags, 324))
    rows = part.rows if tiled else min(part.rows, tiff.height - part.top)
    width = (part.columns * part.bands * tiff.bits + 7) // 8
    top = 0
    for lines in _decompressed(tiff, stored, width, rows, file):
        yield top, _decoded(tiff, lines, part, dtype, file)
        top += len(lines)
    if top < rows:
        raise ImageError(file, f"truncated or corrupt: {top} of {rows} rows of a strip")


def _decoded(
    tiff: Tiff, lines: npt.NDArray[np.uint8], part: _Part, dtype: np.dtype[Any], file: str
) -> npt.NDArray[Any]:
    """Return the samples [rows, columns, bands] of decompressed rows [rows, bytes]."""
    shape = (len(lines), part.columns, part.bands)
    predictor = tiff._one(317, 1)
    if predictor == 3 and tiff.sample_format == _FLOAT:
        return _floating(lines, shape, dtype)
    if predictor not in (1, 2) or (predictor == 2 and tiff.bits not in (8, 16, 32, 64)):
        raise ImageError(file, f"is a TIFF with predictor {predictor} on {tiff.kind}, which is not supported")
    if tiff.bits not in (8, 16, 32, 64):
        return _unpacked(lines, tiff.bits, shape, dtype)
    values = lines.view(dtype.newbyteorder(tiff.order)).astype(dtype).reshape(shape)
    if predictor == 2:
        whole = values.view(f"u{dtype.itemsize}")
        values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(dtype)
    return values


def _unpacked(
    lines: npt.NDArray[np.uint8], bits: int, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Unpack samples of any number of bits, the highest first; rows begin at whole bytes."""
    rows, columns, bands = shape
    single = np.unpackbits(lines, axis=1, count=columns * bands * bits).reshape(rows, columns, bands, bits)
    values = np.zeros(shape, dtype)
    for bit in range(bits):
        values = (values << 1) | single[..., bit].astype(dtype)
    return values


def _floating(lines: npt.NDArray[np.uint8], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Undo the floating-point predictor (Adobe Photoshop TIFF Technical Note 3)."""
    rows, columns, bands = shape
    summed = np.cumsum(lines.reshape(rows, -1, bands), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, dtype.itemsize, columns * bands)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
    return values.astype(dtype).reshape(shape)


def _decompressed(tiff: Tiff, stored: memoryview, width: int, rows: int, file: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the bytes of a strip or tile, up to `rows` rows of `width` bytes, in blocks of whole rows."""
    compression = tiff._one(259, 1)
    if tiff._one(266, 1) == 2:
        stored = memoryview(bytes(stored).translate(_REVERSED))
    blocks = strips(rows, width)
    if compression == 1:
        yield from (_lines(stored[block.start * width : block.stop * width], width) for block in blocks)
    elif compression in _DEFLATE:
        inflater = Inflater(stored)
        yield from (_lines(inflater.read((block.stop - block.start) * width), width) for block in blocks)
        if not inflater.finish(_SURPLUS):
            raise ImageError(file, "truncated or corrupt: a strip or tile cannot be inflated")
    elif compression in _BY_PILLOW:
        with Image.open(io.BytesIO(_grey_tiff(stored, width, rows, compression)), formats=("TIFF",)) as image:
            image.load()
            yield from (np.array(rows_of(image, block)) for block in blocks)
    else:
        reason = f"is a TIFF with {tiff.kind} in compression {compression}, which is not supported"
        raise ImageError(file, f"{reason}; save it with Deflate")


def _lines(flat: bytes | memoryview, width: int) -> npt.NDArray[np.uint8]:
    """Return the whole rows [rows, width] that there are."""
    rows = len(flat) // width
    return np.frombuffer(flat, np.uint8, width * rows).reshape(rows, width)


def _grey_tiff(stored: bytes | memoryview, width: int, rows: int, compression: int) -> bytes:
    """Wrap compressed bytes as an 8-bit grey TIFF of one strip, so that Pillow decompresses them."""
    entries = {256: width, 257: rows, 258: 8, 259: compression, 262: 1, 273: 122, 277: 1, 278: rows, 279: len(stored)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + stored
