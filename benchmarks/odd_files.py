"""Odd files of every kind, and whether the reason of each refusal names the format and the cause.

    python -m benchmarks.odd_files --out docs/measurements/refusals.md

A seeded generator makes the files and plants what is wrong with each: cut and damaged images, samples and bands that no
image has, other files under the name of an image. Each is decoded as a run does; the reason must match the words of the
planted format and cause. `--sample N` prints reasons to be read by eye, one line each.
"""

from __future__ import annotations

import argparse
import bz2
import datetime
import gzip
import io
import json
import lzma
import pickle
import random
import re
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from benchmarks.sections import write_section
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

PAGE = """# Reasons of refusals

This file is written by `python -m benchmarks.odd_files` and `python -m benchmarks.hostile_files`; do not edit
it.

{files:,} files from a generator with a seed, with each of which something is planted to be wrong ({date}). They are
decoded as a run does. A reason is right if it names the planted format and the planted cause, by words that the
generator knows. A file may be read only to the pixels of the undamaged one.

| kind | files | read whole | refused | named right |
|---|---:|---:|---:|---:|
{rows}

In all, {right:,} of {refused:,} refusals ({share:.1%}) name format and cause. Files read with other pixels: {half}.

Words can match by chance, so 100 reasons of another seed were read by eye (`--seed 5 --sample 100`, 2026-11-30): 98
named format and cause. A cut TGA, which has no signature, and samples that are not finite were named without their
format.
"""
DAMAGED = "truncated|corrupt|incomplete|missing|cannot be read|never written|ends before"
EITHER = f"{DAMAGED}|not supported|no pixels|max_pixels|zero|known format"


class Odd(NamedTuple):
    """A file, what kind of oddity it is, what its reason must match, and the pixels that it may be read to."""

    kind: str
    data: bytes
    words: tuple[str, ...]
    whole: bytes | None = None


def odd_files(seed: int) -> Iterator[Odd]:
    """Yield all files; the same for the same seed."""
    generator = random.Random(seed)
    pixels = np.random.default_rng(seed)
    for make in (cut, damaged, banded, deep, foreign, sized, plain):
        yield from make(generator, pixels)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _photo(pixels: np.random.Generator, side: int = 40) -> Image.Image:
    rows, columns = np.mgrid[0:side, 0 : side + 8]
    colours = np.stack([rows * 5, columns * 4, 255 - rows * 3], axis=-1) + pixels.integers(0, 30, (side, side + 8, 3))
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))


FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", {}),
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True}),
    "CMYK JPEG": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {}),
    "palette PNG": ("PNG", "P", {}),
    "GIF": ("GIF", "P", {}),
    "WebP": ("WEBP", "RGB", {}),
    "lossless WebP": ("WEBP", "RGB", {"lossless": True}),
    "TIFF": ("TIFF", "RGB", {}),
    "deflated TIFF": ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    "LZW TIFF": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "JPEG TIFF": ("TIFF", "RGB", {"compression": "jpeg"}),
    "BMP": ("BMP", "RGB", {}),
    "TGA": ("TGA", "RGB", {}),
    "PPM": ("PPM", "RGB", {}),
    "JPEG 2000": ("JPEG2000", "RGB", {}),
    "AVIF": ("AVIF", "RGB", {}),
    "ICO": ("ICO", "RGB", {}),
    "QOI": ("QOI", "RGB", {}),
    "DDS": ("DDS", "RGB", {}),
    "SGI": ("SGI", "RGB", {}),
    "PCX": ("PCX", "RGB", {}),
    "HEIC": ("HEIF", "RGB", {}),
}


def _of(name: str, pixels: np.random.Generator) -> bytes:
    kind, mode, options = FORMATS[name]
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return _saved(_photo(pixels).convert(mode), kind, **options)


def _called(name: str) -> str:
    """What a reason may call a format: TGA has no signature, and an ICO holds PNG or BMP."""
    base = name.split()[-1] if name != "JPEG 2000" else name
    return {
        "ICO": "ICO|PNG|BMP",
        "PPM": "PNM",
        "TGA": "TGA|known format|text|truncated",
        "HEIC": "HEIC|HEIF",
        "JPEG": "JPEG",
    }.get(base, base)


def cut(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Files that end too early."""
    for name in FORMATS:
        for _ in range(40):
            whole = _of(name, pixels)
            data = whole[: int(len(whole) * generator.uniform(0.05, 0.97))]
            yield Odd("cut", data, (_called(name), DAMAGED + "|not of a known format|text file"), whole)


def damaged(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Files with a stretch of bytes overwritten, in formats with a checksum, or with zeros behind the header."""
    for name in ("PNG", "palette PNG", "deflated TIFF"):
        for _ in range(60):
            whole = _of(name, pixels)
            at = generator.randrange(len(whole) // 3, len(whole) - 60)
            junk = bytes(generator.randrange(256) for _ in range(24))
            yield Odd("overwritten", whole[:at] + junk + whole[at + 24 :], (_called(name), DAMAGED), whole)
    for name in FORMATS:
        for _ in range(8):
            whole = _of(name, pixels)
            head = generator.randrange(16, 24)
            if name in ("TGA", "PPM", "PCX", "BMP", "SGI", "QOI", "DDS", "ICO", "TIFF"):
                continue
            data = whole[:head] + bytes(len(whole) - head)
            yield Odd("zeros behind the header", data, (_called(name), EITHER), whole)


def tiff(values: np.ndarray[Any, Any], **tags: int) -> bytes:
    """An uncompressed TIFF of one strip, written by hand."""
    height, width, bands = values.shape
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    body = values.tobytes()
    entries: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (values.dtype.itemsize * 8,) * bands,
        259: (1,),
        262: (2 if bands >= 3 else 1,),
        273: (8,),
        277: (bands,),
        278: (height,),
        279: (len(body),),
        339: (kind,) * bands,
    }
    entries |= {int(tag[1:]): (value,) for tag, value in tags.items()}
    at = 8 + len(body) + len(body) % 2
    table, extra, behind = [], b"", at + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", behind + len(extra))
        extra += packed if len(numbers) > 1 else b""
        table.append(struct.pack("<HHI", tag, 4, len(numbers)) + place)
    start = b"II*\0" + struct.pack("<I", at) + body + bytes(len(body) % 2)
    return start + struct.pack("<H", len(entries)) + b"".join(table) + bytes(4) + extra


def banded(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """TIFFs whose bands no tag explains."""
    for bands in (2, 4, 5, 6, 7, 8, 10, 12, 13, 20):
        for dtype in ("u1", "u2", "i2", "f4"):
            for _ in range(6):
                values = pixels.uniform(0, 100, (generator.randrange(8, 30), 20, bands)).astype(dtype)
                yield Odd("bands", tiff(values), ("TIFF", f"{bands} bands", r"bands=|--bands|transparency"))


def deep(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Samples that are no brightness, or of a kind that is not read."""
    for _ in range(20):
        values = pixels.uniform(0, 1, (16, 20, 1))
        holed = values.astype(np.float32)
        holed[generator.randrange(16), 3] = generator.choice([np.nan, np.inf, -np.inf])
        yield Odd("not finite", tiff(holed), ("NaN or infinite",))
        yield Odd("sample type", tiff(values.astype(np.complex64)), ("TIFF", "complex"))
        yield Odd("sample type", tiff(values.astype(np.float32), t339=5), ("TIFF", "complex int|not supported"))
        yield Odd("sample type", tiff((values * 9).astype(np.uint8), t258=24), ("TIFF", "24"))
        yield Odd(
            "compression",
            tiff((values * 9).astype(np.uint8), t259=generator.choice([6, 34712, 34892, 50001, 22610])),
            ("TIFF", EITHER + "|compression|JPEG"),
        )
        yield Odd(
            "colour space",
            tiff(np.dstack([values.astype("u2")] * 3), t262=generator.choice([8, 9, 10])),
            ("TIFF", "photometric|LAB"),
        )
    for marker, words in {
        0xC3: "lossless",
        0xC9: "arithmetic",
        0xC5: "differential|hierarchical|not supported",
        0xF7: "JPEG-LS",
    }.items():
        for bits in (8, 12, 16):
            yield Odd("kinds of JPEG", _jpeg_frame(marker, bits), ("JPEG", words))
    for bits in (12, 10):
        yield Odd("kinds of JPEG", _jpeg_frame(0xC1, bits), ("JPEG", f"{bits} bits"))
    for bits in (16, 32):
        psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, bits, 3) + bytes(14 + 8 * 8 * 12)
        yield Odd("PSD", psd, ("PSD", f"{bits} bits"))


def _jpeg_frame(marker: int, bits: int) -> bytes:
    frame = struct.pack(">BHHB", bits, 16, 16, 3) + b"".join(bytes((band, 0x11, 0)) for band in (1, 2, 3))
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + struct.pack(">H", 2 + len(frame))
        + frame
        + b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0?\0"
        + bytes(40)
        + b"\xff\xd9"
    )


def _zip(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("photos/1.jpg")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _sqlite() -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        with sqlite3.connect(file.name) as database:
            database.execute("create table t (a)")
        database.close()
        return Path(file.name).read_bytes()


def _npy(pixels: np.random.Generator) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels.integers(0, 255, (8, 8)))
    return file.getvalue()


def _parquet() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"a": [1, 2]}), file)
    return file.getvalue()


FOREIGN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "HTML": (lambda junk: b"<!DOCTYPE html>\n<html><title>404</title>" + junk.hex().encode(), "HTML"),
    "HTML after a comment": (lambda junk: b"<!-- saved -->\n<html><body>" + junk.hex().encode(), "HTML"),
    "SVG": (
        lambda junk: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">' + junk.hex().encode(),
        "SVG",
    ),
    "XML": (lambda junk: b'<?xml version="1.0"?>\n<annotation><size>' + junk.hex().encode(), "XML"),
    "JSON": (lambda junk: json.dumps({"version": "5.0", "shapes": [junk.hex()]}).encode(), "JSON"),
    "CSV": (lambda junk: b"file,label\n" + b"\n".join(b"%d.jpg,cat" % byte for byte in junk), "text"),
    "text": (lambda junk: b"Class: cat, taken by " + junk.hex().encode(), "text"),
    "UTF-16 text": (lambda junk: ("file;label\n" + junk.hex()).encode("utf-16"), "text"),
    "Latin-1 text": (lambda junk: ("Größe;Farbe\n" + junk.hex()).encode("latin-1"), "text"),
    "a Git LFS pointer": (
        lambda junk: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + junk.hex().encode(),
        "LFS",
    ),
    "Base64": (lambda junk: b"data:image/png;base64," + junk.hex().encode(), "Base64"),
    "PDF": (lambda junk: b"%PDF-1.7\n" + junk, "PDF"),
    "PostScript": (lambda junk: b"%!PS-Adobe-3.0 EPSF-3.0\n" + junk, "PostScript"),
    "ZIP": (lambda junk: _zip("1.jpg", junk), "ZIP"),
    "an Office document": (lambda junk: _zip("[Content_Types].xml", junk), "ZIP|Office"),
    "an OpenDocument": (lambda junk: _zip("mimetype", b"application/vnd.oasis.opendocument.graphics"), "document"),
    "gzip": (lambda junk: gzip.compress(junk), "gzip"),
    "bzip2": (lambda junk: bz2.compress(junk), "archive"),
    "xz": (lambda junk: lzma.compress(junk), "archive"),
    "tar": (_tar, "archive|tar"),
    "RAR": (lambda junk: b"Rar!\x1a\x07\x01\0" + junk, "archive"),
    "7z": (lambda junk: b"7z\xbc\xaf\x27\x1c" + junk, "archive"),
    "zlib": (lambda junk: zlib.compress(junk, 9), "known format"),
    "MP4": (lambda junk: b"\0\0\0\x18ftypmp42\0\0\0\0" + junk, "video"),
    "AVI": (lambda junk: b"RIFF" + struct.pack("<I", 64) + b"AVI LIST" + junk, "video"),
    "Matroska": (lambda junk: b"\x1aE\xdf\xa3" + junk, "video"),
    "WAVE": (lambda junk: b"RIFF" + struct.pack("<I", 64) + b"WAVEfmt " + junk, "sound"),
    "MP3": (lambda junk: b"ID3\x04" + junk, "sound"),
    "a program": (lambda junk: b"\x7fELF\x02\x01\x01" + junk, "program"),
    "a Windows program": (lambda junk: b"MZ\x90\0" + junk, "program"),
    "SQLite": (lambda junk: _sqlite(), "SQLite"),
    "NumPy": (lambda junk: _npy(np.random.default_rng(junk[0])), "NumPy"),
    "pickle": (lambda junk: pickle.dumps({"a": junk}), "Python objects"),
    "Parquet": (lambda junk: _parquet(), "table"),
    "HDF5": (lambda junk: b"\x89HDF\r\n\x1a\n" + junk, "scientific"),
    "MATLAB": (lambda junk: b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + junk, "scientific"),
    "FITS": (lambda junk: b"SIMPLE  =                    T".ljust(2880), "FITS"),
    "NIfTI": (lambda junk: struct.pack("<i", 348) + bytes(340) + b"n+1\0" + junk, "NIfTI"),
    "OpenEXR": (lambda junk: b"v/1\x01\x02\0\0\0" + junk, "OpenEXR"),
    "HDR": (lambda junk: b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n" + junk, "HDR"),
    "JPEG XL": (lambda junk: b"\xff\x0a" + junk, "JPEG XL"),
    "JPEG XR": (lambda junk: b"II\xbc\x01" + junk, "JPEG XR"),
    "XCF": (lambda junk: b"gimp xcf v011\0" + junk, "XCF"),
    "CR2": (lambda junk: b"II*\0\x10\0\0\0CR\x02\0" + junk, "RAW"),
    "CR3": (lambda junk: b"\0\0\0\x18ftypcrx " + junk, "RAW"),
    "RAF": (lambda junk: b"FUJIFILMCCD-RAW 0201" + junk, "RAW"),
    "DNG": (lambda junk: tiff(np.zeros((8, 8, 1), np.uint8), t50706=1), "RAW"),
    "NEF": (lambda junk: tiff(np.zeros((8, 8, 3), np.uint8), t254=1), "RAW"),
    "DICOM without pixels": (lambda junk: bytes(128) + b"DICM" + bytes(60), "DICOM"),
    "font": (lambda junk: b"\0\x01\0\0\0\x0f\0\x80" + junk, "font"),
    "Blender": (lambda junk: b"BLENDER-v300" + junk, "3-D"),
    "EMF": (lambda junk: b"\x01\0\0\0" + bytes(36) + b" EMF" + junk, "metafile"),
    "WMF": (lambda junk: b"\xd7\xcd\xc6\x9a" + junk, "metafile"),
    "a Finder's file": (lambda junk: b"\0\0\0\x01Bud1" + junk, "file manager"),
    "AppleDouble": (lambda junk: b"\0\x05\x16\x07\0\x02\0\0" + junk, "file manager"),
    "thumbs.db": (lambda junk: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + junk, "OLE"),
    "encrypted": (lambda junk: b"Salted__" + junk, "encrypted"),
}


def foreign(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Other files under the name of an image."""
    for make, words in FOREIGN.values():
        for _ in range(10):
            yield Odd("other files", make(bytes(generator.randrange(256) for _ in range(64))), (words,))


def sized(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Too many pixels, or none."""
    for _ in range(20):
        wide, high = generator.randrange(20_000, 60_000), generator.randrange(20_000, 60_000)
        png = bytearray(_of("PNG", pixels))
        png[16:24] = struct.pack(">II", wide, high)
        png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
        yield Odd("size", bytes(png), (f"{wide}×{high}", "max_pixels"))
        jpeg = bytearray(_of("JPEG", pixels))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", high, wide)
        yield Odd("size", bytes(jpeg), (f"{wide}×{high}", "max_pixels"))
        bmp = bytearray(_of("BMP", pixels))
        bmp[18:26] = struct.pack("<II", wide, high)
        yield Odd("size", bytes(bmp), (f"{wide}×{high}", "max_pixels"))
        yield Odd(
            "size",
            tiff(np.zeros((4, 4, 1), np.uint8), t256=wide, t257=high),
            (f"{wide}×{high}|TIFF", "max_pixels|strips"),
        )


def plain(generator: random.Random, pixels: np.random.Generator) -> Iterator[Odd]:
    """Nothing, zeros, and noise."""
    yield Odd("nothing", b"", ("empty",))
    for _ in range(30):
        size = generator.randrange(1, 4000)
        yield Odd("zeros", bytes(size), ("zero",))
        yield Odd("noise", b"\xc1" + bytes(generator.randrange(256) for _ in range(size)), ("known format",))
        yield Odd("white space", b" \n\t" * (1 + size // 3), ("text|white space",))


def outcome(odd: Odd, decode: DecodeAdapter) -> tuple[str, str]:
    """Return `whole`, `half`, `right` or `wrong`, and the reason."""
    try:
        pixels = decode(odd.data)
    except ImageError as error:
        right = all(re.search(words, error.reason, re.IGNORECASE) for words in odd.words)
        return ("right" if right else "wrong"), error.reason
    same = odd.whole is not None and np.array_equal(pixels, decode(odd.whole))
    return ("whole" if same else "half"), "was read"


def main(out: Path | None, seed: int, sample: int) -> None:
    """Measure and write."""
    decode = DecodeAdapter()
    found = [(odd, *outcome(odd, decode)) for odd in odd_files(seed)]
    counts: dict[str, Counter[str]] = {}
    for odd, result, _ in found:
        counts.setdefault(odd.kind, Counter())[result] += 1
    for odd, result, reason in found:
        if result in ("wrong", "half") and not sample:
            print(f"{result}: {odd.kind}: {odd.data[:8]!r} {odd.words}: {reason[:150]}")
    for odd, _, reason in random.Random(seed).sample([each for each in found if each[1] in ("right", "wrong")], sample):
        print(f"{odd.kind} | {odd.data[:12]!r} | {' + '.join(odd.words)[:60]} | {reason}")
    rows = [
        f"| {kind} | {n.total():,} | {n['whole']:,} | {n['right'] + n['wrong']:,} | {n['right']:,} |"
        for kind, n in counts.items()
    ]
    total = sum(counts.values(), Counter())
    refused = total["right"] + total["wrong"]
    text = PAGE.format(
        files=len(found),
        date=datetime.date.today(),
        rows="\n".join(rows),
        right=total["right"],
        refused=refused,
        share=total["right"] / refused,
        half=total["half"],
    )
    print(text)
    if out is not None:
        write_section(out, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.out, arguments.seed, arguments.sample)
