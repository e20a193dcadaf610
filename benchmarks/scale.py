"""How a manifest of 10² to 10⁷ synthetic rows opens, is shared by workers, divided and shuffled: `benchmarks/scale.py`.

    python benchmarks/scale.py --out docs/measurements/scale.md

Without `--out` the table goes to standard output. Every figure comes from a process of its own. A
worker's memory is what it alone holds (`Private_Dirty` of /proc/PID/smaps_rollup, Linux): pages of the mapped file
belong to the system's cache and are there once for all processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from visionadapt.core.records import Manifest
from visionadapt.sources import ManifestSource
from visionadapt.sources.pulled.packed import PackedWriter
from visionadapt.sources.pulled.parquet import FrozenFacts, write_frozen
from visionadapt.sources.pulled.rows import MANIFEST, PACKED, FrozenRow, tie_of

SIZES = [10**power for power in range(2, 8)]
LOOKED_AT = 100_000
WORKERS = 4
BATCH = 256
OTHERS = "## Shards\n"
"""From here on the page is of other measurements, and stays."""


def classes(count: int) -> tuple[str, ...]:
    """At most 1,000, with ten rows at least."""
    return tuple(f"class{number:04}" for number in range(min(count // 10, 1000)))


def rows(count: int, parts: bool) -> Iterator[FrozenRow]:
    """Rows as a large collection has them, a tenth of them for validation where `parts` are marked."""
    names = classes(count)
    for number in range(count):
        label = names[number % len(names)]
        yield FrozenRow(
            key=f"{label}/{number:09}.jpg",
            sha256=hashlib.sha256(number.to_bytes(8, "little")).hexdigest(),
            size=100_000 + number % 50_000,
            width=500,
            height=375,
            mode="RGB",
            labels=(label,),
            split=("val" if number // len(names) % 10 == 0 else "train") if parts else None,
            fetched_at=1_700_000_000,
        )


def freeze(folder: Path, count: int, parts: bool) -> None:
    """Write a manifest as a pull writes it."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        packed = PackedWriter(Path(work), classes(count))
        with write_frozen(folder / MANIFEST, FrozenFacts(classes(count), "synthetic")) as write:
            every = rows(count, parts)
            while some := list(islice(every, 16_384)):
                write(some)
                for row in some:
                    packed.append(row)
        packed.finish(folder / PACKED, "synthetic", tie_of(folder / MANIFEST))


def own_memory() -> int:
    """Bytes that this process alone holds and has written."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))


def peak_memory() -> int:
    """Most bytes that were in memory at once."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def opened(folder: Path) -> dict[str, float]:
    """Seconds until the first row is there, and what the process holds for it."""
    before, started = own_memory(), time.perf_counter()
    manifest = ManifestSource(folder).manifest()
    _ = manifest[len(manifest) // 2]
    seconds = time.perf_counter() - started
    looked = look_at(manifest, 0)
    return {"open_s": seconds, "record_us": looked, "open_mb": (own_memory() - before) / 1e6}


def look_at(manifest: Manifest, seed: int) -> float:
    """Look at random rows; return how many microseconds each takes."""
    generator = random.Random(seed)
    started = time.perf_counter()
    count = min(len(manifest), LOOKED_AT)
    for _ in range(count):
        _ = manifest[generator.randrange(len(manifest))].key
    return (time.perf_counter() - started) / count * 1e6


def shared(folder: Path, method: str) -> dict[str, float]:
    """What each of some workers holds for the training part, when all have looked at many rows."""
    manifest = ManifestSource(folder).manifest()
    train = manifest.select(index for index in range(len(manifest)) if index % 10)
    context: Any = multiprocessing.get_context(method)
    barrier, queue = context.Barrier(WORKERS), context.Queue()
    held = [(context.Process(target=work, args=(train, place, barrier, queue))) for place in range(WORKERS)]
    bare = [(context.Process(target=work, args=(None, place, barrier, queue))) for place in range(WORKERS)]
    found = {}
    for name, processes in (("held", held), ("bare", bare)):
        for process in processes:
            process.start()
        found[name] = max(queue.get() for _ in processes)
        for process in processes:
            process.join()
    return {f"{method}_mb": (found["held"] - found["bare"]) / 1e6}


def work(train: Manifest | None, place: int, barrier: Any, queue: Any) -> None:
    """One worker: look at rows, wait for the others, tell what is held."""
    if train is not None:
        look_at(train, place)
    barrier.wait()
    queue.put(own_memory())
    barrier.wait()


def shuffled(count: int) -> dict[str, float]:
    """Seconds for one epoch's whole order in batches, and how far the process grew."""
    from visionadapt.data.order import Shuffle

    Shuffle(10, 0, 0)
    before, started = peak_memory(), time.perf_counter()
    order = Shuffle(count, 0, 0)
    seen = sum(len(order[start : start + BATCH]) for start in range(0, count, BATCH))
    seconds = time.perf_counter() - started
    if seen != count:
        raise RuntimeError(f"{seen} rows of {count}")
    return {"shuffle_s": seconds, "shuffle_mb": (peak_memory() - before) / 1e6}


def divided(folder: Path) -> dict[str, float]:
    """Seconds to divide the rows, and how far the process grew."""
    from visionadapt.data.splits import split

    source = ManifestSource(folder)
    before, started = peak_memory(), time.perf_counter()
    train, val = split(source, val=0.1)
    seconds = time.perf_counter() - started
    if not len(val) < len(train):
        raise RuntimeError(f"{len(val)} of {len(train)} rows to validate with")
    return {"split_s": seconds, "split_mb": (peak_memory() - before) / 1e6}


MEASURES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "open": lambda folder, count: opened(folder / "marked"),
    "fork": lambda folder, count: shared(folder / "marked", "fork"),
    "spawn": lambda folder, count: shared(folder / "marked", "spawn"),
    "shuffle": lambda folder, count: shuffled(count),
    "marked": lambda folder, count: {f"marked_{name}": value for name, value in divided(folder / "marked").items()},
    "split": lambda folder, count: divided(folder / "plain"),
}


def measure(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """The median of some runs of each measure, each in a fresh process."""
    for name in ("marked", "plain"):
        if not (folder / name).exists():
            freeze(folder / name, count, parts=name == "marked")
    found: dict[str, float] = {"rows": count, "mb": (folder / "marked" / PACKED).stat().st_size / 1e6}
    for name in MEASURES:
        runs = []
        for _ in range(repeats if name in {"open", "fork", "spawn"} else 1):
            command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--rows", str(count)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        found |= {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in runs[0]}
    return found


COLUMNS = {
    "rows": ("rows", "{:,.0f}"),
    "file, MB": ("mb", "{:,.1f}"),
    "open, s": ("open_s", "{:.4f}"),
    "a row, µs": ("record_us", "{:.1f}"),
    "worker by fork, MB": ("fork_mb", "{:.1f}"),
    "worker by spawn, MB": ("spawn_mb", "{:.1f}"),
    "one epoch's shuffle, s": ("shuffle_s", "{:.2f}"),
    "shuffle, MB": ("shuffle_mb", "{:.1f}"),
    "divided by the rows' own parts, s": ("marked_split_s", "{:.2f}"),
    "MB": ("marked_split_mb", "{:,.0f}"),
    "divided by class, s": ("split_s", "{:.2f}"),
    "MB ": ("split_mb", "{:,.0f}"),
}


def page(table: list[dict[str, float]], load: float) -> str:
    """The results as Markdown, measured while other programs made this load at the beginning."""
    import numpy
    import pyarrow
    import torch

    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    lines += ["| " + " | ".join(form.format(row[key]) for key, form in COLUMNS.values()) + " |" for row in table]
    versions = f"Python {platform.python_version()}, numpy {numpy.__version__}, pyarrow {pyarrow.__version__}"
    return TEXT.format(
        table="\n".join(lines),
        machine=f"{os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}",
        versions=f"{versions}, torch {torch.__version__}",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        load=load,
    )


TEXT = """# Manifests of up to ten million rows

{table}

Measured by `python benchmarks/scale.py --out docs/measurements/scale.md` on {machine} with {versions}, on {date};
the load by other programs was {load:.1f} at the beginning. Opening and workers are medians of three; each value comes
from a process of its own.

- **open**: from the path of the folder to the first row, including the check that the packed file belongs to the
  Parquet file, without imports. A user's first opening compares it with its checksums, about 1.2 ms per MB more.
- **a row**: a complete `Record` with all columns, at random positions, with the file in the page cache.
- **worker**: private memory (`Private_Dirty`) of each of four workers for a selection of nine tenths of the rows, after
  reading 100,000 of them, minus that of a worker without a manifest. The mapped file and the row numbers (4 bytes per
  row) are shared by all.
- **shuffle**: the complete order of an epoch in batches of 256, and the growth of the process.
- **divided**: `visionadapt.split` on the frozen manifest, by existing splits, and by class (1,000 classes, a
  tenth for validation) if there are none; and the growth of the process.

## Alternatives measured

Arrow IPC instead of `manifest.packed`: the same 10,000,000 rows, memory-mapped, groups, splits and modes
dictionary-encoded, ten record batches. CPU time on a busy machine, medians of three; a pulled manifest is
untrusted input, so that opening it includes checking it.

| | `manifest.packed` | Arrow IPC |
|---|---:|---:|
| open and check all offsets and codes, ms | 62 | 160 |
| a row at a random position, µs | 20 | 34 |
| splits of all rows (`to_pylist`), µs per row | 0.16 | 2.0 |
| worker by spawn, MB | 0.1 | 8.3 |
| memory that reading a malicious file of 33 KB takes | 0 | 1.07 GB |

The last row is a compressed column of zeros: Arrow expands it when it reads the batch, before anything can be checked.
The worker's memory is mostly `pyarrow` itself, which nothing else in a worker imports.

`torch.randperm` for the order of more than 32,768 rows: 80 MB for ten million, instead of 6.
"""


def main() -> None:
    """Measure every size, or with `--measure` one thing in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=MEASURES)
    parser.add_argument("--folder", type=Path, help="keep the manifests there for another time")
    parser.add_argument("--rows", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](arguments.folder, arguments.rows)))
        return
    load, table = os.getloadavg()[0], []
    for count in (size for size in SIZES if size <= arguments.largest):
        with tempfile.TemporaryDirectory() as folder:
            table.append(measure((arguments.folder or Path(folder)) / str(count), count, arguments.repeats))
        print(json.dumps(table[-1]), file=sys.stderr, flush=True)
    text = page(table, load)
    if arguments.out:
        before = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else ""
        others = before[before.index(OTHERS) :] if OTHERS in before else ""
        arguments.out.write_text(f"{text}\n{others}" if others else text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
