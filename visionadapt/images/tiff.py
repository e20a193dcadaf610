"""Read the samples of a TIFF as stored, with every depth and number of bands; Pillow decompresses them.

Pillow alone drops bands and low bits, and opens only some of these files.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from visionadapt.errors import ImageError
from visionadapt.images.depth import Declared

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
_COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, CMYK: 4}
PREMULTIPLIED = 1
_ALPHA = {PREMULTIPLIED, 2, 999}
"""Values of ExtraSamples that mean transparency: premultiplied, straight, and Corel Draw's."""
_DEFLATE = {8, 32946}
_BY_PILLOW = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_MOST_PAGES = 10_000


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
        pages: number of pages in the file.
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
    pages: int
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
    parts = list(_parts(tiff, file))
    offsets, counts = _places(tiff, len(parts), file)
    samples = np.empty((tiff.height, tiff.width, tiff.bands), dtype)
    for part, offset, count in zip(parts, offsets, counts, strict=True):
        stored = data[offset : offset + count]
        block = _decoded(tiff, stored, part, dtype, file)
        rows = min(part.rows, tiff.height - part.top)
        columns = min(part.columns, tiff.width - part.left)
        place = (slice(part.top, part.top + rows), slice(part.left, part.left + columns))
        samples[(*place, slice(part.band, part.band + part.bands))] = block[:rows, :columns]
    return samples


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
        pages=_pages(data, tags, file),
        tags=tags,
        order="<" if data[:2] == b"II" else ">",
    )


def _pages(data: bytes, tags: ImageFileDirectory_v2, file: io.BytesIO) -> int:
    """Count the pages, as far as their directories can be read."""
    seen: set[int] = set()
    following = tags.next
    while 0 < following < len(data) and following not in seen and len(seen) < _MOST_PAGES:
        seen.add(following)
        page = ImageFileDirectory_v2(data[: 16 if 43 in (data[2], data[3]) else 8])
        file.seek(following)
        try:
            page.load(file)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            break
        following = page.next
    return 1 + len(seen)


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


def _parts(tiff: Tiff, file: str) -> Iterator[_Part]:
    """Yield the strips or tiles in the order in which they are stored."""
    rows, columns = tiff._one(278, tiff.height), tiff.width
    if _numbers(tiff.tags, 324):
        rows, columns = tiff._one(323, 0), tiff._one(322, 0)
    rows = min(rows, tiff.height) if columns == tiff.width else rows
    if rows < 1 or columns < 1 or max(rows, columns) > 2**16 + max(tiff.height, tiff.width):
        raise ImageError(file, f"truncated or corrupt: its strips or tiles have {columns}×{rows} pixels")
    separate = tiff._one(284, 1) == 2
    for band in range(tiff.bands if separate else 1):
        for top in range(0, tiff.height, rows):
            for left in range(0, tiff.width, columns):
                yield _Part(top, left, rows, columns, band, 1 if separate else tiff.bands)


def _places(tiff: Tiff, parts: int, file: str) -> tuple[list[int], list[int]]:
    tiled = bool(_numbers(tiff.tags, 324))
    offsets, counts = (_numbers(tiff.tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
    if not counts and parts == 1 and tiff._one(259, 1) == 1:
        counts = [tiff.width * tiff.height * tiff.bands * 8]
    if min(len(offsets), len(counts)) < parts:
        raise ImageError(file, f"truncated or corrupt: its strips do not fill {tiff.width}×{tiff.height} pixels")
    return [int(offset) for offset in offsets[:parts]], [int(count) for count in counts[:parts]]


def _decoded(tiff: Tiff, stored: bytes, part: _Part, dtype: np.dtype[Any], file: str) -> npt.NDArray[Any]:
    """Decompress a strip or tile to [rows, columns, bands]; the last strip may have fewer rows."""
    tiled = bool(_numbers(tiff.tags, 324))
    rows = part.rows if tiled else min(part.rows, tiff.height - part.top)
    width = (part.columns * part.bands * tiff.bits + 7) // 8
    flat = _decompressed(tiff, stored, width, rows, file)
    if len(flat) < width * rows:
        raise ImageError(file, f"truncated or corrupt: {len(flat)} of {width * rows} bytes of a strip")
    lines = np.frombuffer(flat, np.uint8, width * rows).reshape(rows, width)
    shape = (rows, part.columns, part.bands)
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


def _decompressed(tiff: Tiff, stored: bytes, width: int, rows: int, file: str) -> bytes:
    """Return the bytes of a strip or tile: `rows` rows of `width` bytes."""
    compression, reversed_bits = tiff._one(259, 1), tiff._one(266, 1) == 2
    if reversed_bits:
        stored = np.packbits(np.unpackbits(np.frombuffer(stored, np.uint8), bitorder="little")).tobytes()
    if compression == 1:
        return stored[: width * rows]
    if compression in _DEFLATE:
        inflater = zlib.decompressobj()
        flat = inflater.decompress(stored, width * rows)
        inflater.decompress(inflater.unconsumed_tail, 2**16)
        if not inflater.eof:
            raise ImageError(file, "truncated or corrupt: a strip or tile cannot be inflated")
        return flat
    if compression in _BY_PILLOW:
        with Image.open(io.BytesIO(_grey_tiff(stored, width, rows, compression)), formats=("TIFF",)) as image:
            return image.tobytes()
    raise ImageError(
        file, f"is a TIFF with {tiff.kind} in compression {compression}, which is not supported; save it with Deflate"
    )


def _grey_tiff(stored: bytes, width: int, rows: int, compression: int) -> bytes:
    """Wrap compressed bytes as an 8-bit grey TIFF of one strip, so that Pillow decompresses them."""
    entries = {256: width, 257: rows, 258: 8, 259: compression, 262: 1, 273: 122, 277: 1, 278: rows, 279: len(stored)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + stored
