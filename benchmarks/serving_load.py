"""Write docs/measurements/serving.md: `serve` under many clients, beside odd ones, against `Predictor.stream`.

    python -m benchmarks.serving_load RUN PHOTOS

Clients of this process send photographs over loopback, each the next one as soon as it has its answer. Beside them
come an image of 80 megapixels, text that is named as an image, clients that send a byte a second, and uploads that
break off.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import io
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import visionadapt as va
from visionadapt.frozen.timing import machine
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of

_FILE = Path(__file__).parents[1] / "docs" / "measurements" / "serving.md"
_TEXT = """# Serving

This file is written by `python -m benchmarks.serving_load`; do not edit it.

{clients} clients on loopback for {seconds:.0f} s, each with one photograph per request, in a process of their own on
the same {cores} cores as the server: first by themselves, then again beside an image of 80 megapixels every
{pause:.0f} s, text named as an image every second, clients that send one byte per second, and uploads that break off.
{backbone}, adapter {adapter}, {threads} threads, {machine}, torch {torch}, {date}; `--seconds {limit:.0f}`. The load
average before was {load:.1f}.

| sound requests | alone | beside odd ones |
|---|---|---|
| answered | {alone.answered:,} | {beside.answered:,} |
| failed | {alone.failed} | {beside.failed} |
| photographs per second | {alone.rate:.1f} | {beside.rate:.1f} |
| ratio to `Predictor.stream` on the same photographs | {alone_ratio:.2f} | {beside_ratio:.2f} |
| seconds to an answer, median | {alone.median:.2f} | {beside.median:.2f} |
| seconds to an answer, 99th percentile | {alone.late:.2f} | {beside.late:.2f} |

| | |
|---|---|
| `Predictor.stream`, photographs per second, before and after | {before:.1f} and {after:.1f} |
| answers to images of 80 megapixels | {large} |
| answers to text | {text} |
| answers to slow clients | {slow} |
| uploads that broke off | {cut} |
| memory of the server before, after the first part, and at the end | {memory} MB |
| exit code after SIGTERM | {code} |
"""


_ODD = ("large", "text", "slow")
_PAUSE = 10.0
"""Seconds between two images of 80 megapixels."""


@dataclass
class Load:
    """What clients have seen, in `took` seconds."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    odd: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in _ODD})
    cut: int = 0
    took: float = 0.0

    @property
    def answered(self) -> int:
        """Sound requests that were answered."""
        return len(self.seconds)

    @property
    def failed(self) -> str:
        """How many sound requests failed, and the commonest reasons."""
        return f"{len(self.failures)} {Counter(self.failures).most_common(3) if self.failures else ''}".strip()

    @property
    def rate(self) -> float:
        """Photographs per second."""
        return self.answered / self.took

    @property
    def median(self) -> float:
        """Median seconds to an answer."""
        return statistics.median(self.seconds)

    @property
    def late(self) -> float:
        """99th percentile of the seconds to an answer."""
        return float(np.quantile(self.seconds, 0.99))


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--limit", type=float, default=30.0, help="the server's --seconds")
    parser.add_argument("--out", type=Path, default=_FILE)
    given = parser.parse_args()
    files = sorted(given.photos.rglob("*.jpg"))[:320]
    photos = [path.read_bytes() for path in files]
    load_before = os.getloadavg()[0]
    before = streamed(given.run, files, given.seconds / 2)
    with serving(given.run, given.limit) as (process, port):
        alone, beside, memory = asyncio.run(loaded(port, process.pid, photos, given.clients, given.seconds))
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    after = streamed(given.run, files, given.seconds / 2)
    predictor = va.load(given.run)
    given.out.write_text(
        _TEXT.format(
            clients=given.clients,
            seconds=given.seconds,
            pause=_PAUSE,
            cores=os.cpu_count(),
            backbone=predictor.classifier.backbone.name,
            adapter=predictor.classifier.adapter or "none",
            threads=torch.get_num_threads(),
            machine=machine(),
            torch=torch.__version__,
            date=datetime.datetime.now(tz=datetime.UTC).date(),
            load=load_before,
            alone=alone,
            beside=beside,
            alone_ratio=2 * alone.rate / (before + after),
            beside_ratio=2 * beside.rate / (before + after),
            before=before,
            after=after,
            limit=given.limit,
            **{name: counted(seen) for name, seen in beside.odd.items()},
            cut=beside.cut,
            memory=", ".join(f"{each:,.0f}" for each in memory),
            code=code,
        ),
        encoding="utf-8",
    )


def counted(seen: Counter[str]) -> str:
    """How often which answer came."""
    return ", ".join(f"{count} × {what}" for what, count in seen.items()) or "none within this time"


def streamed(run: str, files: Sequence[Path], seconds: float) -> float:
    """Photographs per second of `Predictor.stream`, without its first pass."""
    predictor, manifest = va.load(run), manifest_of(FileSource([str(path) for path in files]))
    count, started = 0, 0.0
    for _ in itertools.repeat(None):
        for _ in predictor.stream(manifest):
            count += 1
            if started and time.perf_counter() - started > seconds:
                return count / (time.perf_counter() - started)
        if not started:
            count, started = 0, time.perf_counter()
    raise AssertionError


@contextmanager
def serving(run: str, limit: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the command; yield its process and port."""
    command = [sys.executable, "-m", "visionadapt.serve", run, "--port", "0", "--json", "--seconds", str(limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
        finally:
            process.kill()


async def loaded(
    port: int, pid: int, photos: Sequence[bytes], clients: int, seconds: float
) -> tuple[Load, Load, list[float]]:
    """Send photographs, alone and then beside odd requests; return what clients saw, and the server's memory in MB."""
    await asyncio.gather(*(_client(port, photos[at : at + 1], Load(), 0) for at in range(32)))
    memory = [_megabytes(pid)]
    alone = await _sound(port, photos, clients, seconds)
    memory.append(_megabytes(pid))
    beside, end = Load(), time.perf_counter() + seconds
    others = [
        asyncio.create_task(_repeated("large", port, _large(), beside, end, pause=_PAUSE)),
        asyncio.create_task(_repeated("text", port, b"This is no image.\n" * 40, beside, end, pause=1)),
        *(asyncio.create_task(_slow(port, beside)) for _ in range(5)),
        asyncio.create_task(_cut(port, photos[0], beside, end)),
    ]
    seen = await _sound(port, photos, clients, seconds)
    beside.seconds, beside.failures, beside.took = seen.seconds, seen.failures, seen.took
    memory.append(_megabytes(pid))
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return alone, beside, memory


async def _sound(port: int, photos: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Return what clients saw that send photographs."""
    load, started = Load(), time.perf_counter()
    each = (_client(port, photos[at % len(photos) :], load, started + seconds) for at in range(clients))
    await asyncio.gather(*each)
    load.took = time.perf_counter() - started
    return load


async def _client(port: int, photos: Sequence[bytes], load: Load, end: float) -> None:
    """Send photographs over one connection until the time is over, one at least."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for photo in itertools.cycle(photos):
        started = time.perf_counter()
        try:
            status = await _asked(reader, writer, photo)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            load.failures.append(type(error).__name__)
            return
        if status != 200:
            load.failures.append(str(status))
        else:
            load.seconds.append(time.perf_counter() - started)
        if time.perf_counter() > end:
            writer.close()
            return


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
    """Send one request; return the status of its answer, which is read whole."""
    writer.write(_head(len(body)) + body)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split()[1])


async def _repeated(name: str, port: int, body: bytes, load: Load, end: float, pause: float = 0) -> None:
    while time.perf_counter() < end:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        load.odd[name][str(await _asked(reader, writer, body))] += 1
        writer.close()
        await asyncio.sleep(pause)


async def _slow(port: int, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.readline())
    writer.write(_head(100_000))
    with suppress(OSError):
        while not answer.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([answer], timeout=1)
    load.odd["slow"][(await answer).split()[1].decode()] += 1


async def _cut(port: int, photo: bytes, load: Load, end: float) -> None:
    while time.perf_counter() < end:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_head(len(photo)) + photo[: len(photo) // 2])
        await writer.drain()
        writer.close()
        load.cut += 1
        await asyncio.sleep(0.5)


def _head(length: int) -> bytes:
    return f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def _large() -> bytes:
    """The bytes of a JPEG of 80 megapixels."""
    rows, columns = np.mgrid[0:8000, 0:10000].astype(np.uint16)
    pixels = np.stack([rows // 32 % 256, columns // 40 % 256, (rows + columns) // 70 % 256], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def _megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
