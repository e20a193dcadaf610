"""Measure how busy the device is: `python -m benchmarks.device DATA --device cuda --out docs/measurements/device.md`.

Two steps of a run are timed on DATA's images and on synthetic tensors that are on the device already: the pass of the
frozen part over all images (read, decode, resize, move, normalise, compute, cache), and an epoch of the trained part.
The stall is the share of the time that the device waits for its data. It runs on a CPU too.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.frozen.features import Features
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import Job
from visionadapt.frozen.timing import machine
from visionadapt.images import Augmentation
from visionadapt.training.steps import Training

PAGE = """# Device utilisation

This file is written by `python -m benchmarks.device`; do not edit it.

{images} images, batches of 32, {device}, {machine}, torch {torch}, {date}. Peak memory is that of the
GPU, or of the process on a CPU.

| backbone | adapter | step | engine | images/s | on synthetic tensors | stall | peak memory |
|---|---|---|---|---|---|---|---|
{rows}
"""


def main(data: Path, out: Path, device: str, backbones: Sequence[str], adapters: Sequence[str], weights: str) -> None:
    """Measure and write."""
    rows, images = [], 0
    for name in backbones:
        for adapter in adapters:
            found, images = measure(data, device, name, adapter, weights)
            rows += found
    told = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    text = PAGE.format(
        images=images,
        device=told,
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        rows="\n".join(rows),
    )
    out.write_text(text, encoding="utf-8")
    print(text)


def measure(data: Path, device: str, name: str, adapter: str, weights: str) -> tuple[list[str], int]:
    """The rows of one backbone and adapter, and the number of images."""
    train, val = va.split(sources.FolderSource(data))
    model = va.classifier(name, train.classes, adapter, weights)
    prepare, settings = va.preprocessing_for(model), va.TrainingSettings(device=device, epochs=3, patience=0, workers=2)
    with tempfile.TemporaryDirectory() as cache:
        job = Job(len(train), len(val), Path(cache))
        training = Training(model, {"train": train, "val": val}, prepare, Augmentation("none"), settings, job)
        plan = training.plan()
        pipeline = training.pipeline(plan)
        first = (name, adapter, plan.engine)
        started = time.perf_counter()
        parts = [training.features(pipeline, split) for split in training.rows]
        images = sum(part.computed for part in parts)
        real = (time.perf_counter() - started) / images
        made_up = synthetic_prefix(pipeline)
        rows = [row(first, "frozen pass", real, made_up, plan)] if plan.cut else []
        epochs = [epoch.seconds for epoch in training.epochs(*parts)]
        again = statistics.median(epochs[1:]) / len(train)
        rows.append(row(first, "epoch", again, synthetic_epoch(parts) / len(train), plan))
    return rows, images


def synthetic_prefix(pipeline: Pipeline) -> float:
    """Seconds per image of the frozen part alone."""
    plan = pipeline.plan
    if plan.cut == 0:
        return 0.0
    pixels = pipeline.model.backbone.blank_pixels(plan.prefix_batch).contiguous(memory_format=torch.channels_last)
    run = pipeline.frozen.engine(plan.engine, plan.prefix)
    with torch.inference_mode():
        return seconds(lambda: run(pixels), plan) / plan.prefix_batch


def synthetic_epoch(parts: Sequence[Features]) -> float:
    """Seconds of an epoch's forwards and backwards, on one batch that lies on the device."""
    pipeline = parts[0].pipeline
    model, plan = pipeline.model, pipeline.plan
    state = {name: tensor.to(plan.device) for name, tensor in parts[0].batch(range(min(32, len(parts[0])))).items()}
    model.eval()

    def step() -> None:
        model.head(pipeline.suffix(state)).logsumexp(1).sum().backward()

    def look() -> None:
        with torch.inference_mode():
            model.head(pipeline.suffix(state))

    return seconds(step, plan) * len(parts[0]) / 32 + seconds(look, plan) * len(parts[1]) / 32


def seconds(work: Callable[[], Any], plan: Plan) -> float:
    """The median of five, after one that does not count, the device waited for."""
    found = []
    for _ in range(6):
        started = time.perf_counter()
        work()
        if plan.device.startswith("cuda"):
            torch.cuda.synchronize(plan.device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def row(first: tuple[str, str, str], step: str, real: float, made_up: float, plan: Plan) -> str:
    """One line of the table."""
    on_cuda = plan.device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() if on_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    name, adapter, engine_name = first
    return (
        f"| {name} | `{adapter}` | {step} | {engine_name} | {1 / real:.0f} | {1 / made_up:.0f} | "
        f"{max(1 - made_up / real, 0.0):.0%} | {peak / 1e9:.2f} GB |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbones", nargs="*", default=["tf_efficientnet_lite0"])
    parser.add_argument("--adapters", nargs="*", default=["none", "bottleneck(rank=16, blocks=last:33%)"])
    parser.add_argument("--weights", default="pretrained")
    arguments = parser.parse_args()
    main(
        arguments.data,
        arguments.out,
        arguments.device,
        arguments.backbones,
        arguments.adapters,
        arguments.weights,
    )
