"""Compare the adapter methods on one data set: `python -m benchmarks.adapter_methods DATA --out FILE.md`.

DATA has `train/`, `val/` and `test/` folders. For every method and seed a classifier is trained with the default
settings through the same steps as `python -m visionadapt.train`, and its best epoch is measured on the test split. The
method to recommend is the one with the best mean on the validation split; the test split decides nothing. The page is
written after each method, so that an interrupted run leaves its results; with `--kept FILE.json` another run resumes
from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from visionadapt import sources
from visionadapt.commands.training_run import train
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.loading import choose_workers
from visionadapt.errors import UsageError
from visionadapt.evaluation.evaluate import evaluate, labelled_rows
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.runs.folder import read_json
from visionadapt.runs.options import DEFAULT_ADAPTER, RunOptions
from visionadapt.runs.saved import load

METHODS = [
    "none",
    DEFAULT_ADAPTER,
    "bottleneck(rank=16, blocks=last:33%)",
    "repadapter(blocks=last:33%)",
    "norm(blocks=last:3)",
    "ssf(blocks=last:3)",
    "bitfit(blocks=last:3)",
    "ia3(blocks=last:3)",
    "side(blocks=last:33%)",
    "partial(blocks=last:3)",
    "lpft(blocks=last:3)",
    "lora(blocks=last:3)",
    "dora(blocks=last:3)",
    "convadapter(blocks=last:3)",
]
"""Settings of the adapter, and behind an `@` a learning rate other than the method's own."""

PAGE = """# Adapter methods compared

This file is written by `python -m benchmarks.adapter_methods`; do not edit it.

Every method that applies to the default backbone `tf_efficientnet_lite0`, with the default settings and the method's
own learning rate ([how these were chosen](defaults.md)), or the one after an `@`: {seeds} seeds per method, {threads}
CPU thread, torch {torch}. If the settings name blocks, the method was limited to them, because in all blocks a run
takes minutes on a CPU; full fine-tuning is therefore represented by that of the last blocks (`partial`, `lpft`).
AdaptFormer, Convpass and VPT do not apply: they need a transformer's sublayers or tokens.

CPU seconds are for a complete run (loading, training, validating and saving), the median over the seeds, with the
features of the frozen part cached by an earlier run. The trained share includes the head.

| method | test accuracy, mean | lowest – highest | validation, mean | CPU seconds | trained share |
|---|--:|--:|--:|--:|--:|
{rows}

Best on the validation split, of those with the method's own rate: `{best}`, with a mean of {accuracy:.4f} on test. Rows
with another rate are for comparison only.
"""


@dataclass(frozen=True)
class Row:
    """What one method brought."""

    method: str
    test: list[float]
    val: list[float]
    seconds: list[float]
    share: float

    def __str__(self) -> str:
        spread = f"{min(self.test):.4f} – {max(self.test):.4f}"
        return (
            f"| `{self.method}` | {statistics.mean(self.test):.4f} | {spread} | {statistics.mean(self.val):.4f} | "
            f"{statistics.median(self.seconds):.0f} | {self.share:.2%} |"
        )


def main(data: str, out: Path, methods: Sequence[str], seeds: int, kept: Path | None) -> None:
    """Measure what is not kept yet, and write."""
    rows = read(kept)
    for method in dict.fromkeys(methods):
        if method not in [row.method for row in rows]:
            rows.append(measure(data, method, seeds))
        if kept is not None:
            kept.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1), encoding="utf-8")
        out.write_text(page(rows, seeds), encoding="utf-8")


def read(kept: Path | None) -> list[Row]:
    """The rows that an earlier run has measured."""
    if kept is None or not kept.exists():
        return []
    return [Row(**row) for row in json.loads(kept.read_text(encoding="utf-8"))]


def measure(data: str, method: str, seeds: int) -> Row:
    """Train with each seed, measure the best epoch on test."""
    test, val, seconds, share = [], [], [], 0.0
    adapter, _, rate = (part.strip() for part in method.partition("@"))
    for seed in range(seeds):
        settings = TrainingSettings(seed=seed, learning_rate=float(rate) if rate else None)
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            run = train(RunOptions(data=data, out=f"{folder}/run", adapter=adapter), settings)
            seconds.append(time.process_time() - started)
            predictor = load(run)
            rows, _ = labelled_rows(sources.FolderSource(data), "test", predictor.classes)
            evaluation = evaluate(predictor, rows, choose_workers(-1, len(rows)))
            if not isinstance(evaluation, SingleLabelEvaluation):
                raise UsageError(f"{data} has several labels per image; methods are compared on single labels")
            test.append(evaluation.matrix.accuracy)
            summary = read_json(run, "summary.json")
        val.append(summary["val_accuracy"])
        share = summary["trainable_parameters"] / summary["total_parameters"]
    return Row(method, test, val, seconds, share)


def page(rows: Sequence[Row], seeds: int) -> str:
    """The results as Markdown."""
    best = max((row for row in rows if "@" not in row.method), key=lambda row: statistics.mean(row.val))
    return PAGE.format(
        seeds=seeds,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        rows="\n".join(str(row) for row in rows),
        best=best.method,
        accuracy=statistics.mean(best.test),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, metavar="FILE.json")
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.methods, arguments.seeds, arguments.kept)
