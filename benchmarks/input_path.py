"""JPEG bytes to normalised floats, against timm.

    python -m benchmarks.input_path DATA --out docs/measurements/input-path.md

DATA is a folder of photographs. They are saved again as JPEGs of 500×375 and of 4000×3000 pixels; one thread converts
them to batches of 32 in both ways, interleaved. CPU seconds are counted, so that other processes
matter less.
"""

from __future__ import annotations

import argparse
import datetime
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import visionadapt as va
from visionadapt.frozen.timing import machine

NAME = "tf_efficientnet_lite0"
SIZES = {"500×375": (500, 375, 64), "4000×3000": (4000, 3000, 8)}
PAGE = """# Reading images

This file is written by `python -m benchmarks.input_path`; do not edit it.

JPEG bytes → normalised float32 [32, 3, 224, 224], one thread, medians of {rounds} interleaved rounds, CPU milliseconds
per image. {machine}, torch {torch}, {date}.

| image | timm's eval transform | visionadapt | ratio | with `--scaled` | ratio |
|---|---|---|---|---|---|
{rows}
"""
Input = Callable[[list[bytes]], torch.Tensor]


def main(data: Path, out: Path, rounds: int) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    text = PAGE.format(
        rounds=rounds,
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        rows="\n".join(row(name, files_of(data, *size), rounds) for name, size in SIZES.items()),
    )
    out.write_text(text, encoding="utf-8")
    print(text)


def row(name: str, files: list[bytes], rounds: int) -> str:
    """One line of the table."""
    paths = [as_timm_does(), as_we_do(scaled=False), as_we_do(scaled=True)]
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds + 1):
        for path, found in zip(paths, seconds, strict=True):
            started = time.process_time()
            for start in range(0, len(files), 32):
                path(files[start : start + 32])
            found.append((time.process_time() - started) / len(files) * 1e3)
    theirs, own, scaled = (statistics.median(found[1:]) for found in seconds)
    return f"| {name} | {theirs:.2f} | {own:.2f} | {theirs / own:.1f} | {scaled:.2f} | {theirs / scaled:.1f} |"


def files_of(data: Path, width: int, height: int, count: int) -> list[bytes]:
    """Photographs as JPEGs of one size, quality 90."""
    found = []
    for path in sorted(data.rglob("*.jpg"))[:count]:
        file = io.BytesIO()
        Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def as_timm_does() -> Input:
    """timm's eval transform, image by image, as its loader and its `validate.py` apply it."""
    transform = create_transform(**resolve_data_config({}, model=timm.create_model(NAME)))
    return lambda files: torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in files])


def as_we_do(scaled: bool) -> Input:
    """The preprocessing of a run: decoded and resized one by one, normalised as a batch."""
    prepare = va.preprocessing_for(NAME, scaled=scaled)
    return lambda files: prepare.device(torch.stack([prepare.host(data) for data in files]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.rounds)
