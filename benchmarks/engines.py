"""Compare the engines of the frozen part: `python -m benchmarks.engines DATA --out docs/measurements/engines.md`.

DATA has `train/`, `val/` and `test/` folders. Every engine runs the whole default backbone on real images, interleaved,
against the unmodified timm model: eager, float32, NCHW, in a process of its own, which returns freed memory to the
system as by default. Linear probes are trained on the features of each, and with each setting of `--keep`; their labels
for the validation and test images are compared with those of eager float32.
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

import timm
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.backbones.packaged import packaged_file
from visionadapt.evaluation.evaluate import labelled_rows
from visionadapt.frozen.engines import Prefix
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.timing import machine
from visionadapt.model.classifier import classifier
from visionadapt.system.process import keep_freed_memory

NAME = "tf_efficientnet_lite0"
SETTINGS: dict[str, dict[str, Any]] = {
    "eager float32": {"engine": "eager", "precision": "float32"},
    "eager bfloat16": {"engine": "eager", "precision": "bfloat16"},
    "folded float32": {"engine": "folded", "precision": "float32"},
    "folded bfloat16": {"engine": "folded", "precision": "bfloat16"},
    "onnx float32": {"engine": "onnx", "precision": "float32"},
    "compiled bfloat16": {"engine": "compiled", "precision": "bfloat16"},
    "folded, nothing kept": {"engine": "folded", "keep": "nothing"},
    "eager, pixels kept": {"engine": "eager", "keep": "pixels"},
}
PAGE = """# Engines of the frozen part

This file is written by `python -m benchmarks.engines`; do not edit it.

Backbone `{name}`, batches of 32 photographs, {threads} threads, {machine}, torch {torch}, {date}. Images per second are
medians of {rounds} interleaved rounds; the ratio is to the unmodified timm model: eager, float32, NCHW, without its
classifier, in a process of its own. "Memory kept" is the same in a process that keeps freed memory, as visionadapt
does. The error is ‖y − y₀‖ / ‖y₀‖ of the pooled features against eager float32.

| engine | images/s | ratio | seconds to build | error |
|---|---|---|---|---|
{speed}

Linear probes trained on the features of each, {seeds} seeds: the share of the {images} validation and test images
that get the same label as with eager float32 (the lowest over the seeds), and the mean test accuracy.

| engine and cache | same label | test accuracy |
|---|---|---|
{labels}
"""


def main(data: Path, out: Path, seeds: int, rounds: int) -> None:
    """Measure and write."""
    labels, images = compare_labels(data, seeds)
    text = PAGE.format(
        name=NAME,
        threads=torch.get_num_threads(),
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        rounds=rounds,
        speed="\n".join(compare_speed(data, rounds)),
        seeds=seeds,
        images=images,
        labels="\n".join(labels),
    )
    out.write_text(text, encoding="utf-8")


@torch.inference_mode()
def compare_speed(data: Path, rounds: int) -> list[str]:
    """One row an engine: images/s, ratio, seconds to build, error."""
    keep_freed_memory()
    model = classifier(NAME, ("a", "b")).eval()
    frozen = FrozenPart(model)
    prepare = va.preprocessing_for(model)
    files = sorted((data / "test").rglob("*.jpg"))[:32]
    pixels = prepare.device(torch.stack([prepare.host(file) for file in files]))
    channels_last = pixels.contiguous(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], Any]] = {"timm, memory kept": as_timm_runs_it(pixels)}
    facts: dict[str, tuple[float, float]] = {"timm": (0.0, 0.0), "timm, memory kept": (0.0, 0.0)}
    for name, settings in SETTINGS.items():
        if "keep" in settings:
            continue
        prefix = Prefix(len(model.backbone.segments), settings["precision"], "cpu", 32, torch.get_num_threads())
        started = time.perf_counter()
        run = frozen.engine(settings["engine"], prefix)
        facts[name] = time.perf_counter() - started, frozen.relative_error(settings["engine"], prefix, channels_last)
        runs[name] = lambda run=run: run(channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in facts}
    for _ in range(rounds):
        seconds["timm"].append(seconds_of_timm(data))
        for name, work in runs.items():
            seconds[name].append(seconds_of(work))
    rates = {name: 32 / statistics.median(values) for name, values in seconds.items()}
    return [
        f"| {name} | {rates[name]:.0f} | {rates[name] / rates['timm']:.1f} | {build:.1f} | {error:.1e} |"
        for name, (build, error) in facts.items()
    ]


def seconds_of(work: Callable[[], Any]) -> float:
    """Of one call, behind one that does not count."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_of_timm(data: Path) -> float:
    """Of timm's model in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.engines", str(data), "--timm"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def timm_alone(data: Path) -> float:
    """Seconds of timm's forward on the first images, in this process."""
    prepare = va.preprocessing_for(classifier(NAME, ("a", "b")))
    files = sorted((data / "test").rglob("*.jpg"))[:32]
    return seconds_of(as_timm_runs_it(prepare.device(torch.stack([prepare.host(file) for file in files]))))


def as_timm_runs_it(pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
    """timm's model with the packaged weights, in eager float32 and NCHW."""
    model = timm.create_model(NAME, num_classes=0).eval()
    own = classifier(NAME, ("a", "b")).backbone.model
    model.load_state_dict(own.state_dict())
    assert packaged_file(NAME) is not None
    return lambda: model(pixels.contiguous())


def compare_labels(data: Path, seeds: int) -> tuple[list[str], int]:
    """One row a setting: how many labels are those of eager float32, and the test accuracy."""
    source = sources.FolderSource(data)
    train, val = va.split(source)
    test, _ = labelled_rows(source, "test", source.classes)
    expected: dict[int, list[str | None]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name, settings in SETTINGS.items():
            same, accuracies = [], []
            for seed in range(seeds):
                labels, accuracy = probe(train, val, test, settings, seed, Path(cache))
                expected.setdefault(seed, labels)
                same.append(statistics.mean(a == b for a, b in zip(labels, expected[seed], strict=True)))
                accuracies.append(accuracy)
            rows.append(f"| {name} | {min(same):.2%} | {statistics.mean(accuracies):.4f} |")
    return rows, len(expected[0])


def probe(
    train: va.Manifest, val: va.Manifest, test: va.Manifest, settings: dict[str, Any], seed: int, cache: Path
) -> tuple[list[str | None], float]:
    """Train a linear probe; its labels for the validation and test images, and its accuracy on test."""
    model = classifier(NAME, train.classes, seed=seed)
    prepare = va.preprocessing_for(model)
    for _ in va.fit(model, train, val, prepare, seed=seed, cache=cache, head="trained", **settings):
        pass
    with tempfile.TemporaryDirectory() as folder:
        predictor = va.load(va.save(f"{folder}/run", model, prepare))
        labels = [prediction.label for part in (val, test) for prediction, _ in predictor.stream(part)]
    found = labels[len(val) :]
    return labels, statistics.mean(test[index].label == label for index, label in enumerate(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("engines.md"))
    parser.add_argument("--timm", action="store_true", help="print the seconds of timm's forward, and stop")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.timm:
        print(timm_alone(arguments.data))
    else:
        main(arguments.data, arguments.out, arguments.seeds, arguments.rounds)
