"""Ratios that a user feels, each measured in turns in one run.

    python -m benchmarks.ratios DATA --out docs/measurements/ratios.md

- start-up: `python -m visionadapt.train --help` against `python -c 'import timm'`;
- a second training on the same images with another learning rate, against the first: whole processes, and two calls
  of `fit` in one;
- an epoch after the first, against forward and backward of the trained part on tensors in memory;
- a backbone with LoRA merged into it, against the backbone as it was.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import visionadapt as va
from visionadapt import adapters, sources
from visionadapt.frozen.planning import Job
from visionadapt.frozen.timing import machine
from visionadapt.images import Augmentation
from visionadapt.training.steps import Training

PAGE = """# Typical ratios

The first table is written by `python -m benchmarks.ratios`; do not edit it.

Medians of interleaved measurements. {threads} threads, {machine}, torch {torch}, {date}. If reading images takes
little time, most of a second run is the start of Python and torch, so compare the seconds too.

| what | against | seconds | seconds | ratio |
|---|---|---|---|---|
{rows}
"""


def main(data: Path, out: Path, rounds: int) -> None:
    """Measure and write."""
    rows = [start_up(rounds)]
    for title, options in (
        ("probe", ["--adapter", "none"]),
        ("probe, 384 pixels", ["--adapter", "none", "--image-size", "384"]),
        ("probe, 4 augmented views", ["--adapter", "none", "--augment", "light"]),
    ):
        rows.append(second_run(title, data, options, rounds))
    rows.append(second_fit(data, rounds))
    rows += [epoch(data, adapter) for adapter in ("none", "bottleneck(rank=16, blocks=last:33%)")]
    rows.append(merged(rounds))
    text = PAGE.format(
        threads=torch.get_num_threads(),
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        rows="\n".join(rows),
    )
    kept = out.read_text(encoding="utf-8").partition("\n## ") if out.exists() else ("", "", "")
    out.write_text(text + kept[1] + kept[2], encoding="utf-8")  # other benchmarks' sections stay
    print(text)


def row(what: str, against: str, own: list[float], other: list[float]) -> str:
    """One line of the table."""
    first, second = statistics.median(own), statistics.median(other)
    return f"| {what} | {against} | {first:.3g} | {second:.3g} | {first / second:.2f} |"


def in_turn(rounds: int, *works: Callable[[], Any]) -> list[list[float]]:
    """Seconds of each work, `rounds` times in turn, after one turn that does not count."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, found in zip(works, seconds, strict=True):
            started = time.perf_counter()
            work()
            found.append(time.perf_counter() - started)
    return [found[1:] for found in seconds]


def command(*words: str) -> None:
    """Run Python to its end."""
    subprocess.run([sys.executable, *words], check=True, capture_output=True)


def start_up(rounds: int) -> str:
    """Asking for help loads no torch."""
    own, other = in_turn(
        rounds, lambda: command("-m", "visionadapt.train", "--help"), lambda: command("-c", "import timm")
    )
    return row("`train --help`", "`import timm`", own, other)


def second_run(title: str, data: Path, options: list[str], rounds: int) -> str:
    """The second run finds what the first computed."""
    first, second = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for number, found in enumerate((first, second)):
                more = ["--out", f"{folder}/{number}", "--cache", f"{folder}/cache"]
                more += ["--head-learning-rate", str(1e-3 + number * 1e-3)]
                started = time.perf_counter()
                command("-m", "visionadapt.train", "--data", str(data), *options, *more)
                found.append(time.perf_counter() - started)
    return row(f"second run, {title}", "the first", second, first)


def second_fit(data: Path, rounds: int) -> str:
    """The same in one process, where Python and torch are loaded already."""
    train, val = va.split(sources.FolderSource(data))
    first, second = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for number, found in enumerate((first, second)):
                started = time.perf_counter()
                model = va.classifier(classes=train.classes, adapter="none")
                rate = 1e-3 + number * 1e-3
                for _ in va.fit(model, train, val, va.preprocessing_for(model), cache=cache, head_learning_rate=rate):
                    pass
                found.append(time.perf_counter() - started)
    return row("second `fit` in a process, probe", "the first", second, first)


def epoch(data: Path, adapter: str) -> str:
    """An epoch's training part and validation, against the same forwards and backwards alone."""
    train, val = va.split(sources.FolderSource(data))
    settings = va.TrainingSettings(epochs=4, patience=0, workers=0)
    model = va.classifier(classes=train.classes, adapter=adapter)
    prepare = va.preprocessing_for(model)
    with tempfile.TemporaryDirectory() as cache:
        job = Job(len(train), len(val), Path(cache))
        training = Training(model, {"train": train, "val": val}, prepare, Augmentation("none"), settings, job)
        pipeline = training.pipeline(training.plan())
        parts = [training.features(pipeline, split) for split in training.rows]
        epochs = [found.seconds for found in training.epochs(*parts)][1:]
        states = [
            [part.batch(range(start, min(start + 32, len(part)))) for start in range(0, len(part), 32)]
            for part in parts
        ]

        def alone() -> None:
            model.train()
            for state in states[0]:
                model.head(pipeline.suffix(state)).logsumexp(1).sum().backward()
            model.eval()
            with torch.inference_mode():
                for state in states[1]:
                    model.head(pipeline.suffix(state))

        (bare,) = in_turn(3, alone)
    return row(f"epoch, `{adapter}`", "its forwards and backwards", epochs, bare)


@torch.inference_mode()
def merged(rounds: int) -> str:
    """A merged model is a plain one."""
    plain = va.classifier(classes=("a", "b")).backbone
    model = adapters.merge(va.classifier(classes=("a", "b"), adapter="lora(rank=8, blocks=last:33%)").backbone)
    pixels = torch.rand(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    own, other = in_turn(3 * rounds, lambda: model(pixels), lambda: plain(pixels))
    return row("forward, LoRA merged", "the plain backbone", own, other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.rounds)
