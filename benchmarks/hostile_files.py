"""Hostile, cut and whole image files of every kind: what is read, what is refused, and what goes wrong.

    python -m benchmarks.hostile_files --out docs/measurements/refusals.md

Whole files are photographs and drawn images, saved in every kind that Pillow writes, and the sample images. Hostile
ones are those with random changes, decoded in a process of their own that may crash. Cut ones end at 25, 50, 75 and
90 %, and at, before and after every place where a part of the file begins or ends. All depends on the seed alone.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.sections import write_section
from tests.images.boundaries import boundaries
from tests.images.kinds import KINDS, written
from tests.images.samples import smooth, textured
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter

SAMPLES = Path(__file__).parents[1] / "sample_images"
_SUFFIXES = {".avif", ".bmp", ".gif", ".jpg", ".png", ".tiff", ".webp"}
_SECONDS = 30
_MOST_MEMORY = 4 * 2**30
_SHARES = (25, 50, 75, 90)
_HEADER = 512
_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_QUALITY = {"JPEG", "WEBP", "AVIF", "HEIF"}

PAGE = """## Hostile, cut and whole files

This part is written by `python -m benchmarks.hostile_files` ({date}). {kinds} kinds of files (formats, and their
compressions and modes), {each} of each and {samples} sample images.

**Hostile files.** {hostile:,} files with one to four random changes: bits, bytes and lengths, parts cut out, repeated,
moved or taken from another file, in half of the PNGs under right checksums.

| | files |
|---|---:|
{outcomes}

The slowest took {slowest:.1f} s, and the most memory above an idle process was {most} MB. The decoders wrote
{lines} lines to standard error.

**Cut files.** Accepted means that a tensor came back; it may only be the one of the whole file.

| cut | files | refused | read whole | other pixels |
|---|---:|---:|---:|---:|
{cuts}

**Whole files.** Of {whole:,} whole files that Pillow reads, {refused} were refused. Of the 849 images among Pillow
13.0.0's own tests that it reads (and that have no more than 20 megapixels), 837 were read (2026-11-30). Nine are of
formats that are left out: FITS, IM, GBR, IMT, MCIDAS and PCD. Three are refused as damaged or unclear: a visibly
damaged JPEG, and two TIFFs with a further band that no tag explains.
"""


def images(seed: int) -> Iterator[Image.Image]:
    """Yield small images without end: crops of the sample photographs, and drawn ones."""
    draw = random.Random(seed)
    photographs = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*/*_?00.jpg"))]
    while True:
        width, height = draw.randrange(16, 100), draw.randrange(16, 100)
        kind = draw.randrange(5)
        if kind == 0:
            yield Image.fromarray(smooth(height, width))
        elif kind == 1:
            yield Image.fromarray(textured(height, width, draw.randrange(1000)))
        elif kind == 2:
            yield Image.new("RGB", (width, height), tuple(draw.randbytes(3)))
        else:
            photograph = draw.choice(photographs)
            left, top = draw.randrange(photograph.width - 100), draw.randrange(photograph.height - 100)
            yield photograph.crop((left, top, left + width, top + height))


def whole_files(each: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the bytes of `each` files of every kind, and of the sample images."""
    draw = random.Random(seed)
    for name, (kind, _) in KINDS.items():
        options = {"quality": draw.randrange(20, 96)} if kind in _QUALITY else {}
        for image, _ in zip(images(draw.randrange(2**32)), range(each), strict=False):
            yield name, written(image, name, **options)
    for path in sorted(SAMPLES.glob("*/*")):
        if path.suffix in _SUFFIXES:
            yield "sample", path.read_bytes()


def mutated(files: Sequence[bytes], number: int, seed: int) -> bytes:
    """Return hostile file `number`."""
    draw = random.Random(f"{seed} {number}")
    data = files[number % len(files)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(_CHANGES)(data, draw, files)
    return _with_checksums(data) if data.startswith(b"\x89PNG") and draw.random() < 0.5 else data


def _place(data: bytes, draw: random.Random) -> int:
    """An offset, in half of the cases in what is probably the header."""
    most = min(len(data), _HEADER) if draw.random() < 0.5 else len(data)
    return draw.randrange(most + 1)


def _stretch(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = _place(data, draw)
    return start, min(len(data), start + draw.choice((1, 2, 4, 12, 50, len(data) // 3)))


def _flipped(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 2, 8, 40)) if data else 0):
        changed[min(_place(data, draw), len(data) - 1)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwritten(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    start, end = _stretch(data, draw)
    size = end - start
    return data[:start] + draw.choice((bytes(size), b"\xff" * size, draw.randbytes(size))) + data[end:]


def _numbered(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    size = draw.choice((1, 2, 4, 8))
    number = draw.choice((*_NUMBERS, len(data), len(data) - 1)) % 2 ** (8 * size)
    start = _place(data, draw)
    return data[:start] + number.to_bytes(size, draw.choice(("little", "big"))) + data[start + size :]


def _removed(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    start, end = _stretch(data, draw)
    return data[:start] + data[end:]


def _repeated(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    start, end = _stretch(data, draw)
    return data[:end] + data[start:end] * draw.choice((1, 2, 100)) + data[end:]


def _moved(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    start, end = _stretch(data, draw)
    rest = data[:start] + data[end:]
    place = _place(rest, draw)
    return rest[:place] + data[start:end] + rest[place:]


def _cut(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    return data[: _place(data, draw)]


def _spliced(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    other = draw.choice(files)
    return data[: _place(data, draw)] + other[_place(other, draw) :]


def _behind(data: bytes, draw: random.Random, files: Sequence[bytes]) -> bytes:
    """The signature of another kind, before the rest of a file."""
    size = draw.choice((4, 8, 16, 32))
    return draw.choice(files)[:size] + data[size:]


_CHANGES: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    *(_flipped, _flipped, _overwritten, _numbered, _numbered, _numbered, _removed, _repeated, _moved, _cut),
    *(_spliced, _behind),
)


def _with_checksums(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk made anew."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join((*parts, data[at:]))


def outcome(data: bytes, decode: DecodeAdapter) -> str:
    """Return `read` or `refused`, or what went wrong."""
    try:
        pixels = decode(data)
    except ImageError as error:
        return "refused" if len(str(error).splitlines()) == 1 else "refused in several lines"
    except Exception as error:  # noqa: BLE001 - what is looked for
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    good = pixels.dtype == torch.uint8 and pixels.ndim == 3 and len(pixels) == 3 and pixels.numel() > 0
    return "read" if good else f"a tensor {tuple(pixels.shape)}"


def judge(folder: Path, seed: int, numbers: range) -> None:
    """Print the outcome of each hostile file: its number, seconds, megabytes above an idle process, and words."""
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    decode = DecodeAdapter()
    for data in files[:: len(files) // 40]:
        outcome(data, decode)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    for number in numbers:
        data = mutated(files, number, seed)
        print(json.dumps({"begin": number}), flush=True)
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        began = time.perf_counter()
        told = outcome(data, decode)
        seconds = time.perf_counter() - began
        faulthandler.cancel_dump_traceback_later()
        most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024
        print(json.dumps({"number": number, "seconds": seconds, "mb": most, "told": told}), flush=True)


def hostile(count: int, seed: int, files: Sequence[bytes]) -> dict[str, Any]:
    """Decode hostile files in another process, which is started again after a crash or a file that takes too long."""
    outcomes, slowest, most, number = Counter[str](), 0.0, 0, 0
    with tempfile.TemporaryDirectory() as place, (Path(place) / "errors").open("w+b") as errors:
        folder = Path(place) / "files"
        folder.mkdir()
        for index, data in enumerate(files):
            (folder / f"{index:06}").write_bytes(data)
        while number < count:
            words = [sys.executable, "-m", "benchmarks.hostile_files", "--judge", str(folder), str(number), str(count)]
            process = subprocess.Popen([*words, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            for line in process.stdout:
                found = json.loads(line)
                number = found.get("begin", number)
                if "told" not in found:
                    continue
                number, told = found["number"] + 1, found["told"]
                outcomes[told] += 1
                if told not in ("read", "refused") or found["seconds"] > max(slowest, 2):
                    print(found, files[found["number"] % len(files)][:8], flush=True)
                slowest, most = max(slowest, found["seconds"]), max(most, found["mb"])
            process.wait()
            if number < count:
                outcomes[f"ended by {process.returncode}"] += 1
                print(f"file {number}: the process ended by {process.returncode}", flush=True)
                number += 1
        errors.seek(0)
        written = errors.read().decode(errors="replace").splitlines()
    print("\n".join(written[:20]))
    return {"outcomes": outcomes, "slowest": slowest, "most": most, "lines": len(written)}


def cut_files(files: Sequence[tuple[str, bytes]]) -> dict[str, Counter[str]]:
    """Cut files, and count by the kind of place which are refused, read whole, or read to other pixels."""
    decode = DecodeAdapter()
    counts = {"at 25, 50, 75, 90 %": Counter[str](), "where a part begins or ends": Counter[str]()}
    for name, data in files:
        whole = decode(data)
        at = {place + aside for place in boundaries(data) for aside in (-1, 0, 1)}
        places = ({len(data) * share // 100 for share in _SHARES}, {each for each in at if 0 < each < len(data)})
        for found, cuts in zip(counts.values(), places, strict=True):
            for cut in cuts:
                told = _cut_outcome(data[:cut], whole, decode)
                found[told] += 1
                if told == "other pixels":
                    print(f"{name}: cut at {cut:,} of {len(data):,}: other pixels", flush=True)
    return counts


def _cut_outcome(data: bytes, whole: torch.Tensor, decode: DecodeAdapter) -> str:
    try:
        pixels = decode(data)
    except ImageError:
        return "refused"
    return "read whole" if torch.equal(pixels, whole) else "other pixels"


def refused_whole(files: Sequence[tuple[str, bytes]]) -> int:
    """Count whole files that are refused, and print why."""
    refused = 0
    for name, data in files:
        try:
            DecodeAdapter()(data)
        except ImageError as error:
            refused += 1
            print(f"{name}: {error.reason}")
    return refused


def main(count: int, each: int, seed: int, out: Path | None) -> None:
    """Measure and write."""
    named = list(whole_files(each, seed))
    refused = refused_whole(named)
    cuts = cut_files(named)
    facts = hostile(count, seed, [data for _, data in named])
    text = PAGE.format(
        date=datetime.date.today(),
        kinds=len(KINDS),
        each=each,
        samples=len(named) - each * len(KINDS),
        hostile=count,
        outcomes="\n".join(f"| {told} | {number:,} |" for told, number in facts.pop("outcomes").most_common()),
        cuts="\n".join(
            f"| {place} | {n.total():,} | {n['refused']:,} | {n['read whole']:,} | {n['other pixels']:,} |"
            for place, n in cuts.items()
        ),
        whole=len(named),
        refused=refused,
        **facts,
    )
    print(text)
    if out is not None:
        write_section(out, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="hostile files")
    parser.add_argument("--each", type=int, default=40, help="whole files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", nargs=3, metavar=("FOLDER", "FROM", "TO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.judge:
        judge(Path(given.judge[0]), given.seed, range(int(given.judge[1]), int(given.judge[2])))
    else:
        main(given.count, given.each, given.seed, given.out)
