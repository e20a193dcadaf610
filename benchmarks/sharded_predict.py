"""Compare `predict` in eight shards and on Ray with one process, and kill shards at random moments.

    python -m benchmarks.sharded_predict RUN FOLDER --copies 32

The photographs of FOLDER are repeated under other names. Each way is a command of its own, as a user gives it: one
process with all cores; eight shards with one thread each, as many at a time as there are cores, and `merge`; and
`--engine ray`. Each way also classifies a quarter of the images: what the others take is free of start-up. Then
processes of shards are killed (SIGKILL) ten times. Prints the lines for `docs/measurements/scale.md`.

Core-seconds are those of all processes of a command, which other programs on the machine hardly change; of Ray's they
are sampled five times a second (Linux).
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyarrow import parquet

SHARDS = 8
CORES = os.cpu_count() or 1
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
WAYS = ("one process", "8 shards and merge", "Ray")
KINDS = ("images/s", "without start-up", "images per core-second", "without start-up")
COLUMNS = ("", "s", *KINDS[:2], "core-s", *KINDS[2:], *(f"ratio of {kind}" for kind in KINDS), "table")


@dataclass(frozen=True)
class Images:
    """A run and the folder of images to classify."""

    run: Path
    folder: Path

    def command(self, out: Path, *options: str) -> list[str]:
        return [*module("predict"), str(self.run), str(self.folder), "--out", str(out), "--quiet", *options]


def module(name: str) -> list[str]:
    return [sys.executable, "-m", f"visionadapt.{name}"]


def run(command: Sequence[str], further: Mapping[str, str] | None = None) -> float:
    """Run a command to its end, by default with all cores; return the core-seconds of its processes."""
    every = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    mark = f"SHARDED_PREDICT={uuid.uuid4()}"
    name, value = mark.split("=")
    seen: dict[int, float] = {}
    with subprocess.Popen(command, env={**every, **(further or {}), name: value}, stdout=subprocess.DEVNULL) as process:
        ended = threading.Event()
        watching = threading.Thread(target=watch, args=(mark.encode(), seen, ended))
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watching.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    seen.pop(process.pid, None)
    return usage.ru_utime + usage.ru_stime + sum(seen.values())


def watch(mark: bytes, seen: dict[int, float], ended: threading.Event) -> None:
    """Note the core-seconds of each process that has a variable in its environment, until told to stop."""
    tick = os.sysconf("SC_CLK_TCK")
    other = set[int]()
    while not ended.wait(0.2):
        for number in {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()} - other:
            try:
                if number not in seen and mark not in Path(f"/proc/{number}/environ").read_bytes():
                    other.add(number)
                    continue
                fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
                seen[number] = (int(fields[11]) + int(fields[12])) / tick
            except OSError:
                continue


def repeated(photos: Path, copies: int, folder: Path) -> int:
    """Copy photographs, and link each under further names; return how many images there are."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    for number, path in enumerate(paths):
        first = folder / "copy 000" / f"{number:05d}{path.suffix}"
        first.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, first)
        for copy in range(1, copies):
            other = folder / f"copy {copy:03d}" / first.name
            other.parent.mkdir(exist_ok=True)
            os.link(first, other)
    return len(paths) * copies


def cost(way: str, images: Images, out: Path) -> tuple[float, float]:
    """Write a table in one of the ways; return how many seconds and core-seconds it takes."""
    started = time.perf_counter()
    if way == "one process":
        cores = run(images.command(out))
    elif way == "Ray":
        cores = run(images.command(out, "--engine", "ray", "--actors", str(CORES), "--shards", str(SHARDS)))
    else:
        with ThreadPoolExecutor(CORES) as pool:
            shards = [images.command(out, "--shard", f"{number}/{SHARDS}") for number in range(1, SHARDS + 1)]
            cores = sum(pool.map(lambda command: run(command, ONE_THREAD), shards))
        cores += run([*module("merge"), str(out), "--quiet"])
    return time.perf_counter() - started, cores


def compared(table: Path, other: Path) -> str:
    """Say how far two tables are equal; raise SystemExit where they have other rows or labels."""
    ours, theirs = parquet.read_table(table), parquet.read_table(other)
    if ours.equals(theirs):
        return "equal"
    if ours.column_names != theirs.column_names or ours["file"] != theirs["file"]:
        raise SystemExit(f"{other.name} has other rows than {table.name}")
    changed = sum(mine != its for mine, its in zip(ours["label"].to_pylist(), theirs["label"].to_pylist(), strict=True))
    numbers = [name for name in ours.column_names if str(ours.schema.field(name).type) in {"float", "double"}]
    apart = max(float(np.abs(ours[name].to_numpy() - theirs[name].to_numpy()).max()) for name in numbers)
    return f"{changed} other labels, numbers within {apart:.0e}"


def rates(images: Mapping[str, Images], count: int, rounds: int, work: Path) -> list[str]:
    """Return the rows of the table of rates, by the clock and by core-seconds."""
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(rounds):
        for way in WAYS:
            for part, chosen in images.items():
                out = work / f"{way}-{part}-{number}" / "table.parquet"
                out.parent.mkdir()
                taken.setdefault((way, part), []).append(cost(way, chosen, out))
                print(way, part, *(f"{value:.1f}" for value in taken[way, part][-1]), file=sys.stderr, flush=True)
    lines, first = [], list[float]()
    for way in WAYS:
        same = compared(*(work / f"{name}-all-0" / "table.parquet" for name in (WAYS[0], way)))
        cells, found = [], []
        for kind in range(2):
            whole, some = (statistics.median(each[kind] for each in taken[way, part]) for part in ("all", "quarter"))
            found += [count / whole, count * 3 / 4 / (whole - some)]
            cells += [f"{whole:.0f}", *(f"{rate:.0f}" for rate in found[-2:])]
        first = first or found
        ratios = [f"{rate / its:.2f}" for rate, its in zip(found, first, strict=True)]
        lines.append(f"| {' | '.join([way, *cells, *ratios, same])} |")
    return lines


def killed(images: Images, kills: int, work: Path, seed: int) -> str:
    """Compute all shards, killing their processes at random moments; return a sentence about the merged table."""
    chance, left, starts = random.Random(seed), kills, 0
    out, whole = work / "killed" / "table.parquet", work / "unkilled" / "table.parquet"
    for path in (out, whole):
        path.parent.mkdir()
    run(images.command(whole), ONE_THREAD)
    started = time.perf_counter()
    run(images.command(out, "--shard", f"1/{SHARDS}"), ONE_THREAD)
    lasts = time.perf_counter() - started
    for number in range(2, SHARDS + 1):
        due, done = min(-(-kills // (SHARDS - 1)), left), False
        while due or not done:
            again = ["--overwrite"] if done else []
            command = images.command(out, "--shard", f"{number}/{SHARDS}", *again)
            starts, started = starts + 1, time.perf_counter()
            with subprocess.Popen(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.DEVNULL) as process:
                try:
                    process.wait(chance.uniform(0, lasts) if due else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
            done = process.returncode == 0
            if done:
                lasts = min(lasts, time.perf_counter() - started)
            elif process.returncode == -signal.SIGKILL:
                due, left = due - 1, left - 1
            else:
                raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    run([*module("merge"), str(out), "--quiet"])
    rows = parquet.read_table(out)["file"].to_pylist()
    same = compared(whole, out)
    return (
        f"{kills - left} kills in {starts} starts of {SHARDS - 1} shards, each at a random moment within the time of "
        f"the shortest one so far, {lasts:.0f} s in the end: {len(rows):,} rows, {len(set(rows)):,} different ones; "
        f"against one process with one thread: {same}"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=32, help="a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        count = repeated(given.folder, given.copies, work / "all")
        repeated(given.folder, given.copies // 4, work / "quarter")
        images = {part: Images(given.run, work / part) for part in ("all", "quarter")}
        if given.rounds:
            print(
                "| way | s | images/s | ratio | without start-up, images/s | ratio | table |\n|---|"
                + "---:|" * 5
                + "---|"
            )
            print("\n".join(rates(images, count, given.rounds, work)), flush=True)
        if given.kills:
            print(killed(images["quarter"], given.kills, work, seed=0))
    print(f"{count:,} images, {CORES} cores ({platform.machine()}), load {load:.1f} before")


if __name__ == "__main__":
    main()
