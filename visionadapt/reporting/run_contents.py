"""What a run folder holds, read once: a part that is not there is empty, and the report is the shorter for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.errors import RunError
from visionadapt.evaluation.validation import FOLDER
from visionadapt.images import Preprocessing
from visionadapt.run_folder import saving
from visionadapt.run_folder.options import read_options
from visionadapt.system.text import utf8_safe


@dataclass(frozen=True)
class Predictions:
    """What a run says of the validation pictures that could be used and have a known class, N of them.

    Attributes:
        files: their keys.
        truth, predicted: class indices int64 [N].
        probabilities: calibrated, float64 [N, C].
        abstain: bool [N].
    """

    files: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    abstain: NDArray[np.bool_]

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class: float64 [N]."""
        return np.asarray(self.probabilities.max(axis=1, initial=0))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which predictions are right: bool [N]."""
        return np.asarray(self.truth == self.predicted)


@dataclass(frozen=True)
class RunFacts:
    """The files of a run folder.

    Attributes:
        folder: the run folder.
        config, plan, summary: of the files of these names.
        metrics: one mapping an epoch.
        classes: class names in the order of the logits.
        prepare: the preprocessing.
        evaluation: the validation figures.
        predictions: None where pictures have several classes, or nothing was validated.
    """

    folder: Path
    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...]
    prepare: Preprocessing | None
    evaluation: Mapping[str, Any]
    predictions: Predictions | None

    @property
    def options(self) -> Mapping[str, Any]:
        """Options and settings of the train command by name; empty if the run was saved from Python."""
        return read_options(self.config)


def read_run(run: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        RunError: it is none, or a file of it is damaged.
    """
    if not saving.is_run(run):
        raise RunError(f"{run} is no run folder (it has no config.json of a run); name one that train made")
    classes = tuple(utf8_safe(str(name)) for name in _optional(run, "classes.json", []))
    steps = _optional(run, "preprocess.json", None)
    evaluation = _optional(run, f"{FOLDER}/evaluation.json", {})
    return RunFacts(
        folder=run,
        config=saving.read_json(run, "config.json"),
        plan=_optional(run, "plan.json", {}),
        summary=_optional(run, "summary.json", {}),
        metrics=_metrics(run / "metrics.jsonl"),
        classes=classes,
        prepare=None if steps is None else Preprocessing.from_json(steps),
        evaluation=evaluation,
        predictions=_predictions(run / FOLDER / "predictions.parquet", classes) if "accuracy" in evaluation else None,
    )


def _optional(run: Path, name: str, otherwise: Any) -> Any:
    return saving.read_json(run, name) if (run / name).exists() else otherwise


def _metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(json.loads(line) for line in lines)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); start a new run") from error


def _predictions(path: Path, classes: tuple[str, ...]) -> Predictions | None:
    """The rows whose class is known and that could be used."""
    if not path.exists():
        return None
    import pyarrow
    from pyarrow import compute, parquet

    try:
        table = parquet.read_table(path)
        known = pyarrow.array(classes, pyarrow.string())
        usable = compute.and_(table["label"].is_valid(), compute.is_in(table["true_class"], known))
        rows = table.filter(usable).combine_chunks()
        flat = rows["probabilities"].combine_chunks().flatten().to_numpy()
        return Predictions(
            files=tuple(rows["file"].to_pylist()),
            truth=compute.index_in(rows["true_class"], known).to_numpy().astype(np.int64),
            predicted=compute.index_in(rows["label"], known).to_numpy().astype(np.int64),
            probabilities=np.asarray(flat, np.float64).reshape(len(rows), len(classes)),
            abstain=rows["abstain"].to_numpy().astype(np.bool_),
        )
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({' '.join(str(error).split())}); start a new run") from error
