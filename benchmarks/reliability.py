"""Do harm to runs for real, and count what holds: `python -m benchmarks.reliability NAME [COUNT]`.

Names, and what is counted: `edited` (run folders of a stranger), `flips` (damaged files), `kills` (SIGKILL, resumed to
the same bits), `signals` (saved, exit code, resumed), `shared` (several processes on one folder and cache), `workers`
(killed ones, and small /dev/shm), `fuzz` (inputs of every parser). Short versions are in `tests/whole/`. The figures in
docs/measurements/reliability.md come from here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.forked import Command, import_all, start
from tests.conftest import SMALL_BACKBONE, tinted
from tests.whole.test_crash import SETTINGS, digest, epochs

PROBE = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--batch-size", "4", "--epochs", "6"),
    *("--adapter", "none", "--patience", "0", "--seed", "3"),
)
TIMES = ("seconds", "images_per_second")


def photos(folder: Path, count: int = 24) -> Path:
    """Two classes of small images."""
    for label, name in enumerate(("blood", "grass")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            tinted((60 + number % 40, 90 - number % 40), label, 1000 * label + number).save(
                folder / name / f"{number}.png"
            )
    return folder


def result(run: Path) -> tuple[str, list[dict[str, float]]]:
    """The model's digest, and the metrics without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return digest(run), [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def ended(process: Command, seconds: float = 300) -> tuple[int | None, str]:
    """Wait for a process; return its code and output."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def waited(process: Command, event: Callable[[], bool], most: float = 300) -> float:
    """Wait for an event, the end of a process, or some seconds; return how many it took."""
    began = time.monotonic()
    while process.poll() is None and not event() and time.monotonic() < began + most:
        time.sleep(0.001)
    return time.monotonic() - began


def finish(process: Command) -> None:
    """Wait for a process that must succeed."""
    code, output = ended(process)
    assert code == 0, output


def kills(count: int, work: Path) -> Counter[str]:
    """Kill runs at random moments, with and without workers, with a cold, half or warm cache, and resume them.

    A sixth of the moments is before there is a run folder, the others are in the time that a run takes from there.
    """
    data, draw, found = photos(work / "data"), random.Random(0), Counter[str]()
    whole, lengths = {}, {}
    for name, settings in (("probe", PROBE), ("adapter", SETTINGS)):
        process = start("--data", str(data), "--out", str(work / name), *settings, cache=work / f"warm-{name}")
        begun = waited(process, (work / name).exists)
        lengths[name] = (begun, waited(process, lambda: False))
        finish(process)
        whole[name] = result(work / name)
    for number in range(count):
        name, workers, cache = ("probe", "adapter")[number % 2], "02"[number // 2 % 2], work / f"cache{number}"
        settings, warmth = (PROBE, SETTINGS)[number % 2], ("cold", "half", "warm")[number % 3]
        if warmth != "cold":
            shutil.copytree(work / f"warm-{name}", cache)
        for path in cache.glob("*/ids.bin") if warmth == "half" else ():
            os.truncate(path, path.stat().st_size // 64 * 32)
        run, fresh = work / f"run{number}", ("--data", str(data), "--out", str(work / f"run{number}"), *settings)
        place, (before, after) = draw.uniform(-0.2, 1.0), lengths[name]
        process = start(*fresh, "--workers", workers, cache=cache)
        waited(process, (lambda: False) if place < 0 else run.exists, before * -5 * place if place < 0 else 60)
        waited(process, lambda: False, after * max(place, 0))
        process.kill()
        process.communicate()
        reached = "finished" if (run / "summary.json").exists() else f"epoch {epochs(run)}" if run.exists() else "begun"
        code, output = ended(start(*(("--resume", str(run)) if run.exists() else fresh), cache=cache))
        same = code == 0 and result(run) == whole[name]
        found["same bits" if same else "OTHER"] += 1
        print(number, name, workers, warmth, reached, "same" if same else output[-300:], flush=True)
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
    return found


def signals(count: int, work: Path) -> Counter[str]:
    """Send each signal to running trainings, and resume them."""
    data, draw, found = photos(work / "data"), random.Random(1), Counter[str]()
    finish(start("--data", str(data), "--out", str(work / "whole"), *SETTINGS, cache=work / "cache"))
    whole = result(work / "whole")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        for place in range(count):
            run = work / f"{number.name}{place}"
            process = start("--data", str(data), "--out", str(run), *SETTINGS, cache=work / "cache")
            while process.poll() is None and not run.exists():
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 1.0))
            process.send_signal(number)
            code, output = ended(process)
            if code == 0:  # it was over
                found[f"{number.name}: over before"] += result(run) == whole
                continue
            told = code == 128 + number and "Traceback" not in output and f"--resume {run}" in output
            code, more = ended(start("--resume", str(run), cache=work / "cache"))
            good = told and code == 0 and result(run) == whole
            found[f"{number.name}: told and resumed to the same bits" if good else f"{number.name}: WRONG"] += 1
            if not good:
                print(number.name, place, output[-300:], more[-300:], flush=True)
    return found


def shared(count: int, work: Path) -> Counter[str]:
    """Start two, then eight processes at once into one run folder; and others with one cache."""
    data, found = photos(work / "data"), Counter[str]()
    finish(start("--data", str(data), "--out", str(work / "whole"), *SETTINGS, cache=work / "other"))
    whole = result(work / "whole")
    for many in (2, 8):
        for turn in range(count):
            cache, run = work / f"cache{many}-{turn}", work / f"one{many}-{turn}"
            words = ("--data", str(data), *SETTINGS)
            ends = [ended(p) for p in [start(*words, "--out", str(run), cache=cache) for _ in range(many)]]
            won = sum(code == 0 for code, _ in ends)
            told = all(code in {0, 2} and "Traceback" not in output for code, output in ends)
            good = won == 1 and told and result(run) == whole
            found[f"{many} into one folder: {'one wins' if good else 'WRONG'}"] += 1
            if not good:
                print(many, [(code, output[-200:]) for code, output in ends], flush=True)
            cache = work / f"cold{many}-{turn}"
            runs = [work / f"own{many}-{turn}-{place}" for place in range(many)]
            ends = [ended(p) for p in [start(*words, "--out", str(own), cache=cache) for own in runs]]
            good = all(code == 0 for code, _ in ends) and all(result(own) == whole for own in runs)
            found[f"{many} with one cold cache: {'all the same bits' if good else 'WRONG'}"] += 1
            if not good:
                print(many, [(code, output[-200:]) for code, output in ends], flush=True)
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def workers(count: int, work: Path) -> Counter[str]:
    """Kill a worker process at random moments, and train with small /dev/shm."""
    data, draw, found = photos(work / "data", 200), random.Random(2), Counter[str]()
    settings = ("--data", str(data), *PROBE, "--workers", "2")
    finish(start(*settings, "--out", str(work / "whole"), cache=work / "other"))
    whole = result(work / "whole")
    for number in range(count):
        run = work / f"run{number}"
        process = start(*settings, "--out", str(run), cache=work / f"cache{number}")
        while process.poll() is None and not children(process.pid):
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.3))
        pids, began = children(process.pid), time.monotonic()
        if pids:
            os.kill(draw.choice(pids), signal.SIGKILL)
        code, output = ended(process)
        seconds = time.monotonic() - began
        orphans = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        good = code == 0 and result(run) == whole and not orphans and "Traceback" not in output
        how = "threads took over" if "--workers 0" in output else "it had read all" if pids else "none was running"
        found[f"killed worker: {how}, same bits" if good else "killed worker: WRONG"] += 1
        if not good:
            print(number, code, seconds, orphans, output[-400:], flush=True)
    for size in ("64k", "1m", "64m"):
        run = work / f"shm-{size}"
        small = f'mount -t tmpfs -o size={size} tmpfs /dev/shm; exec "$0" "$@"'
        words = ["unshare", "-m", "sh", "-c", small, sys.executable, "-m", "visionadapt.train"]
        environment = {**os.environ, "VISIONADAPT_CACHE": str(work / f"cache-{size}"), "OMP_NUM_THREADS": "1"}
        began = time.monotonic()
        done = subprocess.run(
            [*words, *settings, "--out", str(run)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        good = done.returncode == 0 and result(run) == whole
        found[f"/dev/shm of {size}: {'same bits' if good else 'WRONG'}"] += 1
        print(
            size,
            done.returncode,
            f"{time.monotonic() - began:.0f} s",
            done.stderr[-300:] if not good else "",
            flush=True,
        )
    return found


def edited(count: int, work: Path) -> Counter[str]:
    """Edit run folders, and run every command on them."""
    from tests.whole.edited_runs import COMMANDS

    done = subprocess.run(
        [sys.executable, "-m", "tests.whole.edited_runs", str(work / "place"), *map(str, range(count))],
        capture_output=True,
        text=True,
        check=False,
    )
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    for case in cases:
        if case["harm"] or case["tracebacks"]:
            print(json.dumps(case), flush=True)
    codes = Counter(f"exit code {code}" for case in cases for code in case["codes"].values())
    harm, traces = (sum(bool(case[name]) for case in cases) for name in ("harm", "tracebacks"))
    facts = {"folders": len(cases), "commands": len(cases) * len(COMMANDS), "did harm": harm, "tracebacks": traces}
    return Counter({**facts, **codes})


def fuzz(count: int, work: Path) -> Counter[str]:
    """Fuzz every parser."""
    from tests.fuzzing import main

    return Counter({"inputs": count, "failed": main(count, seed=1, names=[])})


def flips(count: int, work: Path) -> Counter[str]:
    """Run the tests of damaged files, which flip and cut 200 times each."""
    del count, work
    return Counter(
        {"exit code": subprocess.run([sys.executable, "-m", "pytest", "tests/whole/test_damage.py"]).returncode}
    )


HARMS: dict[str, tuple[Callable[[int, Path], Counter[str]], int]] = {
    "edited": (edited, 100),
    "flips": (flips, 0),
    "kills": (kills, 40),
    "signals": (signals, 10),
    "shared": (shared, 3),
    "workers": (workers, 10),
    "fuzz": (fuzz, 10_000_000),
}
TRAINING = {"kills", "signals", "shared", "workers"}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in HARMS:
        sys.exit(f"python -m benchmarks.reliability {' | '.join(HARMS)} [COUNT]")
    harm, usual = HARMS[sys.argv[1]]
    place = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed by the end of every fork
    try:
        if sys.argv[1] in TRAINING:
            warm = place / "warm"
            import_all("--data", str(photos(warm / "data")), "--out", str(warm / "run"), *SETTINGS)
        for what, times in harm(int(sys.argv[2]) if len(sys.argv) > 2 else usual, place).items():
            print(f"{what}: {times:,}")
    finally:
        shutil.rmtree(place, ignore_errors=True)
