"""What memory `predict`, `embed` and `audit` take beside the model at 10⁷ rows: `benchmarks/shard_memory.py`.

    python -m benchmarks.shard_memory RUN FOLDER --rows 10000000 --kept /tmp/manifests

Synthetic manifests as `visionadapt pull` writes them, a small one and a large one, whose rows have the bytes of real
photographs in turn. Each command runs on both until it has read some thousand rows (`embed` with a cache that knows the
photographs), and is stopped then. What a process holds for itself is sampled ten times a second (`RssAnon`, Linux):
pages of the mapped manifest are the system's cache. What the large manifest takes more than the small one is due to the
rows.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from benchmarks.scale import classes
from visionadapt.sources.pulled.packed import PackedWriter
from visionadapt.sources.pulled.parquet import FrozenFacts, write_frozen
from visionadapt.sources.pulled.rows import MANIFEST, PACKED, FrozenRow, location_of, tie_of

READ = 4_096
WRITTEN = 30_000_000
COMMANDS = ("predict", "predict --shard 3/16", "embed", "embed --shard 3/16", "audit --shard 3/16")


def stored(photos: Path, folder: Path) -> list[tuple[str, int]]:
    """Store photographs as a pull stores them; return the hash and size of each."""
    found = []
    for path in sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"}):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        target = folder / location_of(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        found.append((digest, len(data)))
    return found


def freeze(folder: Path, photos: Path, count: int) -> None:
    """Write a manifest of rows with the bytes of photographs in turn."""
    bytes_of, names = stored(photos, folder), classes(count)
    rows = (
        FrozenRow(
            key=f"{names[number % len(names)]}/{number:09}.jpg",
            sha256=bytes_of[number % len(bytes_of)][0],
            size=bytes_of[number % len(bytes_of)][1],
            width=400,
            height=400,
            mode="RGB",
            labels=(names[number % len(names)],),
            fetched_at=1_700_000_000,
        )
        for number in range(count)
    )
    with tempfile.TemporaryDirectory(dir=folder) as work:
        packed = PackedWriter(Path(work), names)
        with write_frozen(folder / MANIFEST, FrozenFacts(names, "synthetic")) as write:
            while some := list(islice(rows, 16_384)):
                write(some)
                for row in some:
                    packed.append(row)
        packed.finish(folder / PACKED, "synthetic", tie_of(folder / MANIFEST))


def watched(command: list[str], enough: Callable[[], bool]) -> tuple[float, float, bool]:
    """Run a command until it has done enough; return its largest own memory in MB, seconds, and whether it had."""
    most, done, started = 0.0, False, time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not done:
            time.sleep(0.1)
            most = max(most, own(process.pid))
            done = enough()
        process.send_signal(signal.SIGKILL)
    return most, time.perf_counter() - started, done or process.returncode == 0


def own(process: int) -> float:
    """Megabytes that a process holds and that are no file's."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def lines_of(folder: Path) -> int:
    """How many predictions the unfinished table in a folder has."""
    return sum(path.read_bytes().count(b"], [") for path in folder.glob(".table*.partial"))


def written(folder: Path) -> int:
    """Bytes of the unfinished table in a folder."""
    return sum(path.stat().st_size for path in folder.glob(".writing-*"))


def measured(name: str, manifest: Path, work: Path, run: Path) -> tuple[float, float, bool]:
    """Run a command on a manifest, in an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    program, source = [sys.executable, "-m", f"visionadapt.{name.split()[0]}"], f"manifest({manifest})"
    shard, out = name.split()[1:], ["--out", str(work / "table.parquet")]
    if name.startswith("predict"):
        command = [*program, str(run), "--data", source, *out, *shard]
        return watched(command, lambda: lines_of(work) >= READ)
    if name.startswith("audit"):
        scans = work / "scans"
        return watched([*program, source, "--scanned", str(scans), *shard], lambda: written(scans) > WRITTEN)
    cache = ["--cache", str(manifest.parent / "cache")]
    return watched([*program, source, "--run", str(run), *out, *cache, *shard], lambda: written(work) > WRITTEN)


def main() -> None:
    """Measure every command, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--small", type=int, default=1_000_000)
    parser.add_argument("--kept", type=Path, help="keep the manifests there for another time")
    parser.add_argument("--commands", nargs="*", default=COMMANDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = given.kept or Path(folder)
        for count in (given.small, given.rows):
            if not (kept / str(count) / PACKED).exists():
                freeze(kept / str(count), given.folder, count)
        if not given.commands:
            return
        print(f"| command | {given.small:,} rows, MB | {given.rows:,}, MB | more, MB | s |\n|---|{'---:|' * 4}")
        work = Path(folder) / "work"
        if not (kept / "cache").exists():
            measured("embed", kept / str(given.small), work, given.run)  # caches the features of each photograph
        for name in given.commands:
            found = [measured(name, kept / str(count), work, given.run) for count in (given.small, given.rows)]
            (small, _, _), (large, seconds, done) = found
            reached = f"{seconds:.0f}" if done else f"ended after {seconds:.0f}"
            print(f"| `{name}` | {small:.0f} | {large:.0f} | {large - small:.0f} | {reached} |", flush=True)
    print(f"{given.rows:,} rows, {os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[1]:.1f}")


if __name__ == "__main__":
    main()
