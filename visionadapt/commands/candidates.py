"""Candidates: what `train --minutes` and `compare` try, and what came of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from visionadapt.core.settings import STEPWISE, TrainingSettings
from visionadapt.errors import RunError
from visionadapt.metrics.intervals import share
from visionadapt.metrics.paired import difference
from visionadapt.runs.folder import read_json
from visionadapt.runs.options import DEFAULT_ADAPTER
from visionadapt.system.text import percent, signed

FOLDER = "candidates"
"""Folder of the candidates' own run folders, in that of the search."""


@dataclass(frozen=True)
class Candidate:
    """What is tried: a name, and the adapter layers and settings that it is trained with.

    `draw` is added to the seed: the same as another candidate, from other initial values and in another order.
    """

    name: str
    adapter: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    draw: int = 0


CANDIDATES = (
    Candidate("solved head", "none", dict.fromkeys(STEPWISE, 0.0)),
    Candidate("default adapter", DEFAULT_ADAPTER),
    Candidate("layers before projections", "repadapter(blocks=last:33%)"),
    Candidate("default adapter, second seed", DEFAULT_ADAPTER, draw=1),
    Candidate("default adapter, lower rate", DEFAULT_ADAPTER, {"learning_rate": 0.003}),
    Candidate("default adapter, third seed", DEFAULT_ADAPTER, draw=2),
    Candidate("bottlenecks in more blocks", "bottleneck(rank=16, blocks=last:66%)"),
    Candidate("last blocks unfrozen", "partial(blocks=last:3)"),
    Candidate("default adapter in more blocks", "lora(blocks=last:66%)"),
)
"""In the order in which they are tried: the cheapest first, then those that most often were the best."""


@dataclass(frozen=True)
class Result:
    """A trained candidate.

    Attributes:
        candidate: what was trained.
        run: its run folder.
        score: the validation figure that chooses.
        right: which validation images it classifies correctly, bool [N]; [0] for a task without an accuracy.
        seconds: of the whole training.
        peak_bytes: largest memory of the process while it was trained; None where it is not known.
    """

    candidate: Candidate
    run: Path
    score: float
    right: NDArray[np.bool_]
    seconds: float
    peak_bytes: int | None = None

    @property
    def scored_by_accuracy(self) -> bool:
        """Whether the figure that chooses is the accuracy."""
        return len(self.right) > 0 and math.isclose(self.score, self.right.mean(), abs_tol=1e-6)

    def against(self, other: Result) -> tuple[float, float, float]:
        """Return how much higher its accuracy is than another's on the same images, and limits of the difference."""
        gained, lost = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return difference(gained, lost, len(self.right))

    def told_against(self, other: Result) -> str:
        """Say how much higher its accuracy is than another's, by name where another figure chooses."""
        by, low, high = (signed(100 * value) for value in self.against(other))
        figure = "" if self.scored_by_accuracy else "accuracy "
        return f"{figure}{by} points against the {other.candidate.name} (95 % interval {low} to {high})"

    def facts(self, first: Result) -> dict[str, Any]:
        """Return what the file about a search says of it; `first` is the solved head."""
        facts: dict[str, Any] = {
            "name": self.candidate.name,
            "adapter": self.candidate.adapter,
            **({} if self.candidate.adapter == "none" else self.candidate.settings),
            "score": self.score,
            "seconds": round(self.seconds, 1),
            "peak_bytes": self.peak_bytes,
            "model_bytes": (self.run / "model.safetensors").stat().st_size,
            "run": f"{FOLDER}/{self.run.name}",
        }
        if len(self.right):
            if self.scored_by_accuracy:
                facts["interval"] = list(share(int(self.right.sum()), len(self.right)))
            if self is not first:
                facts["against_solved_head"] = dict(
                    zip(("difference", "low", "high"), self.against(first), strict=True)
                )
        return facts

    def row(self, first: Result) -> str:
        """Describe it in a line of the table of all candidates."""
        compared = "" if self is first or not len(self.right) else f", {self.told_against(first)}"
        return f"{percent(self.score)} in {self.seconds:.0f} s{compared}"


def best_of(results: Sequence[Result]) -> Result:
    """Return the result with the highest score, the first one among equals."""
    return max(results, key=lambda result: result.score)


def score_of(summary: Mapping[str, Any], settings: TrainingSettings) -> float:
    """Return the figure that chooses the best epoch, and so the best candidate; raise RunError where there is none."""
    several = "val_accuracy" not in summary
    usual = "mean_average_precision" if several else "accuracy"
    score = summary[f"val_{usual if settings.metric == 'auto' else settings.metric}"]
    if score is None:
        raise RunError("no validation image has a label, so that nothing can be compared; give another --val or split")
    return float(score)


def validated(run: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the calibrated probabilities [N, C] and true classes [N] of a run's usable validation images, in order."""
    table = parquet.read_table(run / "validation" / "predictions.parquet")
    places = {name: place for place, name in enumerate(read_json(run, "classes.json", list))}
    rows = zip(table["true_class"].to_pylist(), table["probabilities"].to_pylist(), strict=True)
    used = [(probabilities, places[own]) for own, probabilities in rows if probabilities is not None]
    return np.array([row[0] for row in used], np.float64), np.array([row[1] for row in used], np.int64)


def right_of(run: Path) -> NDArray[np.bool_]:
    """Return which of the validation images a run classifies correctly, in their order; empty for several classes."""
    table = parquet.read_table(run / "validation" / "predictions.parquet")
    if "true_class" not in table.column_names or "label" not in table.column_names:
        return np.empty(0, np.bool_)
    rows = zip(table["true_class"].to_pylist(), table["label"].to_pylist(), strict=True)
    return np.array([own == label for own, label in rows if label is not None], np.bool_)
