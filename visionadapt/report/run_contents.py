"""Contents of a run folder, read once; what is missing is empty, and the report leaves it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visionadapt.errors import RunError
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.multilabel import MultiLabelEvaluation
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.evaluation.validation import FOLDER
from visionadapt.images import Preprocessing
from visionadapt.runs.folder import is_run, read_json, read_metrics
from visionadapt.runs.options import read_options
from visionadapt.system.text import utf8_safe

_Rows = TypeVar("_Rows")


@dataclass(frozen=True)
class ValidationPredictions:
    """Predictions for the N usable validation images whose class is known.

    Keys of the rows, true and predicted class indices int64 [N], calibrated probabilities float64 [N, C].
    """

    files: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class: float64 [N]."""
        return np.asarray(self.probabilities.max(axis=1, initial=0))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is correct: bool [N]."""
        return np.asarray(self.truth == self.predicted)


@dataclass(frozen=True)
class ValidationLabels:
    """Predictions for the N usable validation images, each with any number of C classes.

    Keys of the rows, true and predicted classes bool [N, C], probabilities float64 [N, C].
    """

    files: tuple[str, ...]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class RunContents:
    """Contents of a run folder: its JSON files, the metrics of each epoch, class names in the order of the logits.

    `evaluation` has the validation metrics; `predictions` is None if images have several classes, or nothing was
    validated, and `labels` unless they have.
    """

    folder: Path
    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...]
    prepare: Preprocessing | None
    evaluation: Mapping[str, Any]
    predictions: ValidationPredictions | None = None
    labels: ValidationLabels | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """Options and settings of the train command by name; empty if the run was saved from Python."""
        return read_options(self.config)

    @property
    def solved(self) -> bool:
        """Whether the head was solved: there are no curves, and it is itself the linear probe."""
        return self.options.get("head") == "solved"


def read_run(run: Path) -> RunContents:
    """Read a run folder; raise RunError if the path is not a run folder, or one of its files is damaged."""
    if not is_run(run):
        raise RunError(f"{run} is not a run folder (config.json of a run is missing); give one that train created")
    classes = tuple(utf8_safe(str(name)) for name in _optional(run, "classes.json", [], list))
    steps = _optional(run, "preprocess.json", None, list)
    evaluation = _optional(run, f"{FOLDER}/evaluation.json", {})
    table = run / FOLDER / "predictions.parquet"
    return RunContents(
        folder=run,
        config=read_json(run, "config.json"),
        plan=_optional(run, "plan.json", {}),
        summary=_optional(run, "summary.json", {}),
        metrics=tuple(read_metrics(run)),
        classes=classes,
        prepare=None if steps is None else Preprocessing.from_json(steps),
        evaluation=evaluation,
        predictions=_read(table, classes, _predictions) if "accuracy" in evaluation else None,
        labels=_read(table, classes, _labels) if "mean_average_precision" in evaluation else None,
    )


def evaluated(run: RunContents, evaluation: Evaluation, figures: Mapping[str, Any]) -> RunContents:
    """Return a run with an evaluation on other images in place of its validation, and without its training."""
    found, labels = None, None
    rows = [evaluation.predictions[place] for place in evaluation.counted]
    if isinstance(evaluation, MultiLabelEvaluation):
        files = tuple(row.file for row in rows)
        labels = ValidationLabels(files, evaluation.truth, evaluation.found, evaluation.probabilities)
    elif isinstance(evaluation, SingleLabelEvaluation):
        index = {name: place for place, name in enumerate(evaluation.classes)}
        found = ValidationPredictions(
            tuple(row.file for row in rows),
            evaluation.truth,
            np.array([index[str(row.label)] for row in rows], dtype=np.int64),
            evaluation.probabilities,
        )
    return replace(run, summary={}, metrics=(), evaluation=figures, predictions=found, labels=labels)


def _optional(run: Path, name: str, otherwise: Any, kind: type = dict) -> Any:
    return read_json(run, name, kind) if (run / name).exists() else otherwise


def _read(path: Path, classes: tuple[str, ...], rows_of: Callable[[Any, tuple[str, ...]], _Rows]) -> _Rows | None:
    """Read the table of the validation images by `rows_of`; None if there is none."""
    if not path.exists():
        return None
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    kinds = {
        **dict.fromkeys(("file", "label", "true_class"), text),
        **dict.fromkeys(("labels", "true_classes"), pyarrow.list_(text)),
        "probabilities": pyarrow.list_(pyarrow.float64()),
    }
    try:
        table = parquet.read_table(path)
        for place, name in enumerate(table.column_names):
            if name in kinds:
                table = table.set_column(place, name, table[name].cast(kinds[name]))
        return rows_of(table, classes)
    except (OSError, KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({' '.join(str(error).split())}); start a new run") from error


def _predictions(table: Any, classes: tuple[str, ...]) -> ValidationPredictions:
    """Return the usable rows whose class is known."""
    import pyarrow
    from pyarrow import compute

    known = pyarrow.array(classes, pyarrow.string())
    rows = table.filter(compute.and_(table["label"].is_valid(), compute.is_in(table["true_class"], known)))
    return ValidationPredictions(
        files=tuple(rows["file"].to_pylist()),
        truth=compute.index_in(rows["true_class"].combine_chunks(), known).to_numpy().astype(np.int64),
        predicted=compute.index_in(rows["label"].combine_chunks(), known).to_numpy().astype(np.int64),
        probabilities=_probabilities(rows, classes),
    )


def _labels(table: Any, classes: tuple[str, ...]) -> ValidationLabels:
    """Return the usable rows."""
    rows = table.filter(table["labels"].is_valid())
    return ValidationLabels(
        files=tuple(rows["file"].to_pylist()),
        truth=_has(rows["true_classes"].to_pylist(), classes),
        predicted=_has(rows["labels"].to_pylist(), classes),
        probabilities=_probabilities(rows, classes),
    )


def _has(names: Sequence[Sequence[str] | None], classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which classes each row has: bool [N, C]; of names that are no class, none."""
    found, index = np.zeros((len(names), len(classes)), np.bool_), {name: place for place, name in enumerate(classes)}
    for row, own in enumerate(names):
        found[row, [index[name] for name in own or () if name in index]] = True
    return found


def _probabilities(rows: Any, classes: tuple[str, ...]) -> NDArray[np.float64]:
    flat = np.asarray(rows["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False), np.float64)
    if not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError("a probability is not in [0, 1]")
    return flat.reshape(len(rows), len(classes))
