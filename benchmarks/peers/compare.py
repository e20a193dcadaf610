"""Compare with other libraries: `python -m benchmarks.peers.compare DATA --out docs/measurements/peers.md`.

DATA has `train/` and `test/` folders. It is split once, so that all libraries train on the same images and validate
after every epoch on the same others. Every measurement is a complete process, from start to test accuracy, without an
existing cache; single measurements follow after the rounds of the others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.frozen.timing import machine

PEERS = ("timm_loop", "trainer", "fastai_learner")
ADAPTERS = ("bottleneck(rank=16, blocks=last:5)", "lora(rank=8, blocks=last:5, where=*conv_pw*)")
"""In the blocks where trainer_peft has its LoRA, the second one at the same convolutions."""
PAGE = """# Comparison with other libraries

This file is written by `python -m benchmarks.peers.compare`; do not edit it.

The same backbone (`tf_efficientnet_lite0`) and weights, {train} training, {val} validation and {test} test photographs,
batches of 32, validated after every epoch. Complete processes, interleaved, from start to test accuracy, without an
existing cache; medians of the rounds. {threads} CPU threads, {machine}, torch {torch}, {date}. "bf16" is what a
careful user would set: bfloat16 and channels last (fastai: only channels last, since `to_fp16` needs a GPU). The ratio
is of the seconds, relative to the first row of the same task; the adapters are in the last five blocks. All other
settings of visionadapt are the defaults.

| task | library | seconds | CPU seconds | ratio | test accuracy | peak memory of a process | rounds |
|---|---|---|---|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Work:
    """One measurement: who does what, in how many epochs."""

    title: str
    module: str
    epochs: int
    careful: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    once: bool = False

    @property
    def who(self) -> str:
        """As the table names it."""
        adapter = self.environment.get("ADAPTER", "none")
        named = self.module.replace("own", "visionadapt") + (f", `{adapter}`" if adapter != "none" else "")
        return named + (", bf16" if self.careful else "")


@dataclass(frozen=True)
class Result:
    """What one process took and reached."""

    seconds: float
    cpu: float
    accuracy: float
    memory: int


def works(epochs: list[int], adapter_epochs: int) -> list[Work]:
    """Everything that is compared: the probes with the quickest peer and the adapters in every round, the rest once."""
    found = []
    for count in epochs:
        title, long = f"probe, {count} epochs", count > min(epochs)
        for careful in (False,) if long else (False, True):
            found += [Work(title, "own", count, careful, {"ADAPTER": "none"}, careful)]
            peers = PEERS[:1] if long else PEERS
            found += [Work(title, peer, count, careful, once=careful or peer != PEERS[0]) for peer in peers]
    title = f"adapter, {adapter_epochs} epochs"
    found += [Work(title, "own", adapter_epochs, False, {"ADAPTER": adapter}) for adapter in ADAPTERS]
    found += [Work(title, "trainer_peft", adapter_epochs)]
    found += [Work(title, "trainer_peft", adapter_epochs, True, once=True)]
    return found


def main(data: Path, out: Path, rounds: int, epochs: list[int], adapter_epochs: int) -> None:
    """Measure and write; the page grows with every measurement."""
    todo = works(epochs, adapter_epochs)
    results: list[list[Result]] = [[] for _ in todo]
    with tempfile.TemporaryDirectory() as folder:
        counts = divide(data, Path(folder))
        pairs = list(zip(todo, results, strict=True))
        often = [pair for pair in pairs if not pair[0].once]
        for work, found in [*often * rounds, *(pair for pair in pairs if pair[0].once)]:
            found.append(measure(work, Path(folder)))
            print(work.who, work.title, found[-1], flush=True)
            out.write_text(page(todo, results, counts), encoding="utf-8")


def divide(data: Path, folder: Path) -> dict[str, int]:
    """Copy the images into `train/`, `val/` and `test/` below a folder; return how many each has."""
    train, val = va.split(sources.FolderSource(data))
    for part, rows in (("train", train), ("val", val)):
        for record in rows:
            target = folder / part / str(record.label) / Path(record.key).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(rows.source.read(record))
    shutil.copytree(data / "test", folder / "test")
    tests = sum(path.is_file() for path in (folder / "test").rglob("*"))
    return {"train": len(train), "val": len(val), "test": tests}


def measure(work: Work, data: Path) -> Result:
    """Run one process to its end."""
    command = [sys.executable, "-m", f"benchmarks.peers.{work.module}", str(data), "--epochs", str(work.epochs)]
    command += ["--careful"] if work.careful else []
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, env={**os.environ, **work.environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        lines = output.read().decode().splitlines()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    last = lines[-1]
    accuracy = json.loads(last[last.index("{") :])["accuracy"]
    return Result(seconds, usage.ru_utime + usage.ru_stime, accuracy, usage.ru_maxrss * 1024)


def page(todo: list[Work], results: list[list[Result]], counts: dict[str, int]) -> str:
    """The results as Markdown."""
    measured = sorted(
        ((work, found) for work, found in zip(todo, results, strict=True) if found), key=lambda pair: pair[0].title
    )
    own = {work.title: median(found, "seconds") for work, found in reversed(measured) if work.module == "own"}
    rows = [
        f"| {work.title} | {work.who} | {median(found, 'seconds'):.1f} | {median(found, 'cpu'):.1f} | "
        f"{median(found, 'seconds') / own[work.title]:.1f} | {median(found, 'accuracy'):.4f} | "
        f"{median(found, 'memory') / 1e9:.2f} GB | {len(found)} |"
        for work, found in measured
    ]
    return PAGE.format(
        **counts,
        threads=torch.get_num_threads(),
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        rows="\n".join(rows),
    )


def median(found: list[Result], name: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(getattr(result, name) for result in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="*", default=[5, 20])
    parser.add_argument("--adapter-epochs", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.rounds, arguments.epochs, arguments.adapter_epochs)
