"""Files that are small on disk and large, or slow, to decode; and a measurement of what decoding them costs."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

SIDE = 4000
"""16 megapixels."""


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def zeros(count: int) -> bytes:
    """`count` zero bytes as a zlib stream; blocks that do not look back are the same bytes, so one is made for all."""
    whole, rest = divmod(count, 2**22)
    packer = zlib.compressobj(1, wbits=-15)
    block = packer.compress(bytes(2**22)) + packer.flush(zlib.Z_FULL_FLUSH) if whole else b""
    packer = zlib.compressobj(1, wbits=-15)
    check = struct.pack(">HH", count % 65521, 1)  # Adler-32
    return b"".join([b"\x78\x01", *[block] * whole, packer.compress(bytes(rest)), packer.flush(), check])


def flat_png(width: int, height: int, bits: int, colour: int, *before: bytes) -> bytes:
    """A black PNG, or one of the first colour of its palette."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zeros(height * (1 + (width * bits * samples + 7) // 8))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def flat_tiff(strip: bytes, tags: dict[int, int | tuple[int, ...]], count: int | None = None, copies: int = 1) -> bytes:
    """A TIFF of `copies` strips or tiles at the same place; tags are LONG."""
    tiled = 324 in tags
    places = {324 if tiled else 273: (8,) * copies, 325 if tiled else 279: (count or len(strip),) * copies}
    entries = {tag: values if isinstance(values, tuple) else (values,) for tag, values in {**tags, **places}.items()}
    at = 8 + len(strip) + 6 + 12 * len(entries)
    table, extra = [struct.pack("<H", len(entries))], []
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        inline = packed if len(packed) == 4 else struct.pack("<I", at)
        if len(packed) > 4:
            extra.append(packed)
            at += len(packed)
        table.append(struct.pack("<HHI", tag, 4, len(values)) + inline)
    return b"".join((b"II*\0", struct.pack("<I", 8 + len(strip)), strip, *table, bytes(4), *extra))


def tiff_tags(width: int, height: int, bits: int, **more: int) -> dict[int, int | tuple[int, ...]]:
    names = {"kind": 339, "photometric": 262, "bands": 277, "compression": 259, "rows": 278, "planar": 284}
    given = {"photometric": 1, "bands": 1, "compression": 8, "rows": height, **more}
    return {256: width, 257: height, 258: bits, **{names[name]: value for name, value in given.items()}}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def large(mode: str) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE))


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "palette PNG with transparency": lambda: flat_png(
        SIDE, SIDE, 1, 3, chunk(b"PLTE", bytes(6)), chunk(b"tRNS", b"\x80\xff")
    ),
    "grey PNG with a transparent value": lambda: flat_png(SIDE, SIDE, 1, 0, chunk(b"tRNS", b"\0\0")),
    "PNG with alpha": lambda: flat_png(SIDE, SIDE, 8, 6),
    "PNG of 16 bits with alpha": lambda: flat_png(SIDE, SIDE, 16, 6),
    "grey PNG of 16 bits": lambda: flat_png(SIDE, SIDE, 16, 0),
    "float TIFF": lambda: flat_tiff(zeros(4 * SIDE * SIDE), tiff_tags(SIDE, SIDE, 32, kind=3)),
    "TIFF of 12 bits": lambda: flat_tiff(zeros(SIDE * SIDE * 3 // 2), tiff_tags(SIDE, SIDE, 12)),
    "colour TIFF of 16 bits": lambda: flat_tiff(
        zeros(6 * SIDE * SIDE), tiff_tags(SIDE, SIDE, 16, bands=3, photometric=2)
    ),
    "ink TIFF of 16 bits": lambda: flat_tiff(zeros(8 * SIDE * SIDE), tiff_tags(SIDE, SIDE, 16, bands=4, photometric=5)),
    "progressive JPEG": lambda: saved(large("RGB"), "JPEG", progressive=True),
    "ink JPEG": lambda: saved(large("CMYK"), "JPEG"),
    "GIF": lambda: saved(large("P"), "GIF", transparency=0),
    "WebP": lambda: saved(large("RGBA"), "WEBP", lossless=True, method=0, quality=0),
}
"""Images of 16 megapixels that are decoded."""


def many_scans(count: int) -> bytes:
    data = saved(Image.new("L", (1600, 1600)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def many_pages(count: int) -> bytes:
    page = struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 8)
    first = saved(Image.new("L", (8, 8)), "TIFF")
    at = int.from_bytes(first[4:8], "little")
    entries = int.from_bytes(first[at : at + 2], "little")
    link = at + 2 + 12 * entries
    start = len(first) + len(first) % 2
    pages = (page + struct.pack("<I", start + 18 * (number + 1)) for number in range(count))
    return first[:link] + struct.pack("<I", start) + first[link + 4 :] + bytes(len(first) % 2) + b"".join(pages)


def gif_of(blocks: bytes) -> bytes:
    data = saved(Image.new("P", (8, 8)), "GIF")
    at = data.index(b"\x2c", 13 + 3 * 2)
    return data[:at] + blocks + data[at:]


def many_frames(count: int) -> bytes:
    data = saved(Image.new("P", (1, 1)), "GIF")
    at = data.index(b"\x2c", 13)
    return data[:-1] + data[at:-1] * count + b";"


def bmp_header(side: int) -> bytes:
    return b"BM" + struct.pack("<IIIIIIHHIIIIII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)


def webp_of(width: int, height: int) -> bytes:
    """A small lossy WebP that states another size."""
    data = saved(Image.new("RGB", (64, 64)), "WEBP")
    return data.replace(struct.pack("<HH", 64, 64), struct.pack("<HH", width, height), 1)


def icon(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def overlapping_tags(count: int) -> bytes:
    """Tags that all claim the same megabytes."""
    body = bytes(8_000_000)
    tags = b"".join(struct.pack("<HHII", 40_000 + number, 1, len(body), 8) for number in range(count))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", count) + tags + bytes(4)


def jpeg_with(junk: bytes) -> bytes:
    data = saved(Image.new("RGB", (16, 16)), "JPEG")
    return data[:2] + junk + data[2:]


CHEAP: dict[str, Callable[[], bytes]] = {
    "JPEG of 20,000 scans": lambda: many_scans(20_000),
    "JPEG of 178 megapixels and 150 scans": lambda: many_scans(150).replace(
        struct.pack(">HH", 1600, 1600), struct.pack(">HH", 13_300, 13_300), 1
    ),
    "JPEG of a million segments": lambda: jpeg_with(b"\xff\xfe\0\2" * 1_000_000),
    "JPEG behind 30 MB of filling": lambda: jpeg_with(b"\xff" * 30_000_000),
    "JPEG behind 30 MB of escapes": lambda: jpeg_with(b"\xff\0" * 15_000_000),
    "TIFF of 100,000 pages": lambda: many_pages(100_000),
    "TIFF of tiles of one pixel": lambda: flat_tiff(b"\0", {**tiff_tags(9000, 9000, 16), 322: 1, 323: 1, 324: 0}),
    "TIFF of one tile of gigabytes": lambda: flat_tiff(
        zeros(400_000_000), {**tiff_tags(16, 16, 16), 322: 60_000, 323: 60_000, 324: 0}
    ),
    "plain TIFF of one tile of gigabytes": lambda: flat_tiff(
        zeros(400_000_000), {**tiff_tags(16, 16, 8), 322: 60_000, 323: 60_000, 324: 0}
    ),
    "TIFF of overlapping strips": lambda: flat_tiff(
        bytes(8_000_000), tiff_tags(16, 60_000, 16, rows=1, compression=1), copies=60_000
    ),
    "TIFF of overlapping deflated strips": lambda: flat_tiff(
        zeros(500_000_000), tiff_tags(16, 60_000, 8, rows=1), copies=60_000
    ),
    "TIFF of overlapping tags": lambda: overlapping_tags(2000),
    "GIF of a million frames": lambda: many_frames(1_000_000),
    "GIF of 20 MB of comments": lambda: gif_of((b"\x21\xfe" + b"\1\0" * 10_000_000) + b"\0"),
    "WebP of 170 megapixels in 100 bytes": lambda: webp_of(16_000, 10_600),
    "WebP of a million chunks": lambda: b"RIFF" + struct.pack("<I", 8_000_004) + b"WEBP" + b"EXIF\0\0\0\0" * 1_000_000,
    "PNG of a million chunks": lambda: flat_png(8, 8, 8, 2, chunk(b"tEXt", b"") * 1_000_000),
    "PNG with a profile of 500 MB": lambda: flat_png(8, 8, 8, 2, chunk(b"iCCP", b"x\0\0" + zeros(5 * 10**8))),
    "PNG with a text of 500 MB": lambda: flat_png(8, 8, 8, 2, chunk(b"zTXt", b"x\0\0" + zeros(5 * 10**8))),
    "PNG of too many pixels": lambda: flat_png(20_000, 20_000, 1, 0),
    "PNG with surplus pixels": lambda: flat_png(8, 8, 8, 2, chunk(b"IDAT", zeros(5 * 10**8))),
    "JPEG 2000 of endless markers": lambda: (
        saved(Image.new("RGB", (64, 64)), "JPEG2000", no_jp2=True)[:-2] + b"\xff\x64\0\2" * 5_000_000
    ),
    "BMP without pixels": lambda: bmp_header(13_000),
    "icon with a PNG of 225 megapixels": lambda: icon(flat_png(15_000, 15_000, 1, 0)),
}
"""Files that cost next to nothing: refused, or decoded without the surplus."""


def measure(path: str) -> dict[str, object]:
    """Decode a file; return the megabytes that it takes beyond the process before, the seconds, and the outcome."""
    from visionadapt.errors import ImageError
    from visionadapt.images import DecodeAdapter

    data = Path(path).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    try:
        outcome = str(tuple(DecodeAdapter().decode(data, "bomb").pixels.shape))
    except ImageError as error:
        outcome = error.reason
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mb": (peak - before) / 2**10, "seconds": seconds, "outcome": outcome}


def main(paths: list[str]) -> None:
    """Measure each file in a process of its own."""
    import visionadapt.images  # noqa: F401 - once, before the processes are forked

    for path in paths:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, json.dumps(measure(path)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        sys.stdout.write((os.read(reading, 65536).decode() or "{}") + "\n")
        sys.stdout.flush()
        os.close(reading)


if __name__ == "__main__":
    main(sys.argv[1:])
