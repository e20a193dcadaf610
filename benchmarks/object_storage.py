"""Compare obstore with fsspec's s3fs on object storage: objects in threads, ranges, a long listing.

    pip install obstore s3fs && python -m benchmarks.object_storage

The server (`benchmarks.s3_server`) is on loopback in a process of its own. Each measurement runs in a fresh process,
the libraries in turn; the medians of `ROUNDS` are written to `docs/measurements/object-storage.md`.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.s3_server import BUCKET, serving

PAGE = Path(__file__).parents[1] / "docs" / "measurements" / "object-storage.md"
ROUNDS = 3
THREADS = 32
OBJECTS = 2000
RANGES = 1000
RANGE = 16_384
KEYS = 1_000_000
LIBRARIES = ("obstore", "s3fs")
TASKS = {
    "objects, no latency": ("get", 0.0, OBJECTS, f"{OBJECTS:,} objects of 100 kB, {THREADS} threads, per second"),
    "objects, 20 ms": ("get", 0.02, OBJECTS, f"the same with 20 ms of latency (limit {THREADS / 0.02:,.0f})"),
    "ranges, 20 ms": ("ranges", 0.02, 1, f"{RANGES:,} ranges of 16 kB in one object, {THREADS} threads, per second"),
    "listing": ("list", 0.0, KEYS, f"{KEYS:,} keys listed and packed, per second"),
}


def _obstore(address: str) -> tuple[Callable[[str], Any], Callable[[str, int], Any], Callable[[], Iterable[str]]]:
    from obstore.store import S3Store

    store = S3Store(
        BUCKET, endpoint=address, client_options={"allow_http": True}, virtual_hosted_style_request=False, **_keys()
    )
    return (
        lambda key: bytes(store.get(key).bytes()),
        lambda key, start: bytes(store.get_range(key, start=start, length=RANGE)),
        lambda: (item["path"] for page in store.list(chunk_size=1000) for item in page),
    )


def _keys() -> dict[str, str]:
    return {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}


def _s3fs(address: str) -> tuple[Callable[[str], Any], Callable[[str, int], Any], Callable[[], Iterable[str]]]:
    from s3fs import S3FileSystem

    files = S3FileSystem(
        key="a",
        secret="b",
        endpoint_url=address,
        config_kwargs={"max_pool_connections": THREADS},
        use_listings_cache=False,
    )
    return (
        lambda key: files.cat_file(f"{BUCKET}/{key}"),
        lambda key, start: files.cat_file(f"{BUCKET}/{key}", start=start, end=start + RANGE),
        lambda: iter(files.find(BUCKET)),
    )


def measure(library: str, task: str, address: str) -> dict[str, float]:
    """Return operations per second, CPU milliseconds per operation, and megabytes that memory grew by."""
    get, get_range, names = {"obstore": _obstore, "s3fs": _s3fs}[library](address)
    first = "class 0/00000000.jpg"
    get(first)
    before, cpu, started = _peak(), time.process_time(), time.perf_counter()
    if task == "list":
        packed = bytearray()
        count = 0
        for name in names():
            packed += name.encode() + b"\n"
            count += 1
        assert count == KEYS
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            if task == "get":
                keys = sorted(f"class {number % 10}/{number:08d}.jpg" for number in range(OBJECTS))
                found = sum(len(data) for data in pool.map(get, keys))
                count = found // 100_000
            else:
                found = sum(len(data) for data in pool.map(lambda n: get_range(first, n * RANGE), range(RANGES)))
                count = found // RANGE
    seconds = time.perf_counter() - started
    return {"rate": count / seconds, "cpu": 1e3 * (time.process_time() - cpu) / count, "memory": _peak() - before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each library at each task, and write the page."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:4])))
        return
    table = []
    for task, latency, count, told in TASKS.values():
        size = RANGES * RANGE if task == "ranges" else 100_000
        found: dict[str, list[dict[str, float]]] = {library: [] for library in LIBRARIES}
        with serving("--count", str(count), "--size", str(size), "--latency", str(latency)) as address:
            for _ in range(1 if task == "list" else ROUNDS):
                for library in LIBRARIES:
                    command = [sys.executable, "-m", "benchmarks.object_storage", library, task, address]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[library].append(json.loads(done.stdout))
        names = {"rate": ",.0f", "cpu": ".3f", "memory": ".0f"}
        cells = [" | ".join(f"{middle(found[lib], name):{form}}" for name, form in names.items()) for lib in LIBRARIES]
        print(told, cells, flush=True)
        table.append(f"| {told} | {' | '.join(cells)} |")
    PAGE.write_text(_page(table), encoding="utf-8")


def middle(found: list[dict[str, float]], name: str) -> float:
    """Return the median of a figure."""
    return statistics.median(each[name] for each in found)


def _page(table: list[str]) -> str:
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} when this was written"
    columns = "".join(f" {name} {version(name)}: rate | CPU ms each | memory MB |" for name in LIBRARIES)
    return (
        f"""# Object storage

This table is written by `python -m benchmarks.object_storage`: two libraries on a small S3 server on loopback, each
measurement in a fresh process, the libraries in turn, medians of {ROUNDS} rounds (the listing: one).
{platform.machine()}, {load}.

| task |{columns}
|---|{"---|" * 3 * len(LIBRARIES)}
"""
        + "\n".join(table)
        + "\n\nWhat `embed` makes of it, against a local disk, is in [sources](sources.md).\n"
    )


if __name__ == "__main__":
    main()
