"""Prediction and training as a user waits for them, each against its yardstick, measured in turns in one run.

    python -m benchmarks.serving PHOTOS --out docs/measurements/ratios.md

- one image: `Predictor.predict(path)` against decoding it and one forward of the bare backbone;
- many: `Predictor.stream` against the slower of decoding alone and the folded forward of the bare backbone alone;
- the peak memory of a process that predicts a list of 3,000 paths, against one that streams them;
- the train command beside busy processes, against its share of the machine.

It replaces its section of the page, and leaves the rest.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import visionadapt as va
from benchmarks.ratios import in_turn
from benchmarks.sections import write_section
from visionadapt.data.dataset import ImageDataset
from visionadapt.data.loading import samples
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.timing import machine
from visionadapt.images import Augmentation
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of

TITLE = "## Prediction, and a busy machine"
TEXT = """{title}

This section is written by `python -m benchmarks.serving`; do not edit it.

Medians of interleaved measurements, {rounds} rounds. {threads} threads, {machine}, torch {torch}, {date}, {count}
photographs, {backbone} with its default adapters. A *fair share* of n cores, beside k busy processes, takes a command
with n threads (n + k) / n times as long as alone.

| what | against | seconds | seconds | ratio |
|---|---|---|---|---|
{rows}
"""
BUSY = "while True: pass"
PEAK = """
import resource, sys
import visionadapt as va
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of
predictor, files = va.load(sys.argv[1]), open(sys.argv[2]).read().split("\\n")
if sys.argv[3] == "stream":
    for _ in predictor.stream(manifest_of(FileSource(files))):
        pass
else:
    predictor.predict(files)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
"""Prints the peak memory in MiB."""


def main(photos: Path, train: Path, out: Path, rounds: int) -> None:
    """Measure, and write the section."""
    files = [str(path) for path in sorted(photos.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    with tempfile.TemporaryDirectory() as folder:
        run = va.train(train, out=f"{folder}/run", epochs=1, cache=f"{folder}/cache")
        predictor = va.load(run)
        rows = one(predictor, files[0], 10 * rounds) + many(predictor, files[:640], rounds)
        rows += memory(run, (files * 3000)[:3000], Path(folder))
        rows += busy(train, rounds)
    text = TEXT.format(
        title=TITLE,
        rounds=rounds,
        threads=torch.get_num_threads(),
        machine=machine(),
        torch=torch.__version__,
        date=datetime.date.today(),
        count=len(files[:640]),
        backbone=predictor.classifier.backbone.name,
        rows="\n".join(rows),
    )
    write_section(out, text)
    print(text)


def row(what: str, against: str, own: float, other: float) -> str:
    """One line of the table."""
    return f"| {what} | {against} | {own:.3g} | {other:.3g} | {own / other:.2f} |"


def bare(predictor: va.Predictor) -> Pipeline:
    """The backbone as it comes, without adapters, as a pipeline."""
    model = va.classifier(predictor.classifier.backbone.name, predictor.classes).eval()
    plan = predictor.pipeline.plan
    model.plan = {**plan.to_json(), "cut": plan.segments, "trained": plan.segments}
    return Pipeline(FrozenPart(model), predictor.prepare, type(plan).from_json(model.plan))


@torch.inference_mode()
def one(predictor: va.Predictor, file: str, rounds: int) -> list[str]:
    """A single image."""
    network, prepare = bare(predictor).model.backbone, predictor.prepare

    def alone() -> None:
        network(prepare.device(prepare.host(file)[None]).contiguous(memory_format=torch.channels_last))

    own, other, padded = in_turn(
        rounds,
        lambda: predictor.predict(file),
        alone,
        lambda: predictor.logits(prepare.host(file)[None]),
    )
    forward = statistics.median(other)
    return [
        row("`predict(path)`", "decoding, and a forward of the bare backbone", statistics.median(own), forward),
        row("a padded batch, as in training", "the same", statistics.median(padded), forward),
    ]


@torch.inference_mode()
def many(predictor: va.Predictor, files: list[str], rounds: int) -> list[str]:
    """Seconds of a stream of files, as many as fill whole batches."""
    size = predictor.plan.prefix_batch
    files = files[: len(files) // size * size]
    manifest = manifest_of(FileSource(files))
    rows = ImageDataset(manifest, predictor.prepare, Augmentation("none"))
    batch = torch.randint(0, 256, (size, 3, *(predictor.prepare.size or (224, 224))), dtype=torch.uint8)
    folded = bare(predictor).for_many()

    def stream() -> None:
        for _ in predictor.stream(manifest):
            pass

    def decode() -> None:
        for _ in samples(rows):
            pass

    def forward() -> None:
        for _ in range(len(files) // size):
            folded.outputs(batch)

    def planned() -> None:
        for _ in range(len(files) // size):
            predictor.pipeline.outputs(batch)

    own, *others = (statistics.median(found) for found in in_turn(rounds, stream, decode, forward, planned))
    decoding, computing, before = others
    slower = max(decoding, computing)
    return [
        row("decoding alone", "the bare backbone's folded forward alone", decoding, computing),
        row(f"the slower of both, for {len(files)} files", "`Predictor.stream`", slower, own),
        row("the trained network as in training", "the bare backbone's folded forward alone", before, computing),
    ]


def memory(run: Path, files: list[str], folder: Path) -> list[str]:
    """Peak memory of whole processes; MiB in place of seconds."""
    listed = folder / "files.txt"
    listed.write_text("\n".join(files), encoding="utf-8")
    peaks = [
        float(subprocess.run([sys.executable, "-c", PEAK, run, listed, how], check=True, capture_output=True).stdout)
        for how in ("list", "stream")
    ]
    return [row(f"`predict` of a list of {len(files):,} paths, MiB", "`stream` of them, MiB", *peaks)]


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Some processes that never wait."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def busy(data: Path, rounds: int) -> list[str]:
    """The train command, from nothing."""
    cores = torch.get_num_threads()

    def train(others: int) -> Callable[[], None]:
        def work() -> None:
            with tempfile.TemporaryDirectory() as folder, beside(others):
                words = ["--data", data, "--epochs", "6", "--out", f"{folder}/run", "--cache", f"{folder}/cache"]
                command = [sys.executable, "-m", "visionadapt.train", *words]
                subprocess.run(command, check=True, capture_output=True)

        return work

    alone, *crowded = (statistics.median(seconds) for seconds in in_turn(rounds, *map(train, (0, 1, 2))))
    rows = []
    for count, seconds in enumerate(crowded, 1):
        beside_them = f"beside {count} busy process{'es' if count > 1 else ''}"
        share = alone * (cores + count) / cores
        rows.append(row(f"train command {beside_them}", f"its fair share ({alone:.3g} s alone)", seconds, share))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--train", type=Path, default=Path("sample_images"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.photos, arguments.train, arguments.out, arguments.rounds)
