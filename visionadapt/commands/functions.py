"""The train and evaluate commands as Python functions, which return what the commands write or print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionadapt.adapters import AdapterSettings
from visionadapt.commands import training_run
from visionadapt.console.notebook import NotebookReporter, in_notebook
from visionadapt.console.reporter import Reporter
from visionadapt.core import spec
from visionadapt.core.records import Source
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.loading import choose_workers
from visionadapt.errors import RunError, UsageError
from visionadapt.evaluation import evaluate as evaluation
from visionadapt.evaluation import plots
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs import ledger
from visionadapt.runs.folder import read_metrics
from visionadapt.runs.options import DEFAULT_ADAPTER, divide
from visionadapt.runs.saved import load
from visionadapt.sources.opening import RowsLike, source_of
from visionadapt.training.epochs import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def train(
    data: str | Path | Source | None = None,
    *,
    out: str | Path | None = None,
    adapter: str | AdapterSettings | None = DEFAULT_ADAPTER,
    epochs: int = TrainingSettings.epochs,
    progress: bool | None = None,
    **options: Any,
) -> Path:
    """Train a classifier, with everything that the train command does, and return its run folder.

    The run folder names its data as text, so that it can be resumed, evaluated and reported: `data` is such a text, or
    a source that can be written as one.

    Args:
        data: labelled images: a folder, a text such as `csv(labels.csv, image=file, label=label)`, or a source. May be
            left out with `resume`.
        out: run folder to create; by default the next free one below `runs/`.
        adapter: adapter layers, as settings or as a text such as `lora(rank=8)`; None trains only the head.
        epochs: passes over the training images.
        progress: print to standard error what the command prints, or show it in the output of a notebook's cell; by
            default in a notebook only.
        options: any other option of the train command, with underscores, such as `batch_size=64` or `resume="runs/a"`;
            all are listed in `runs.options.RunOptions` and `TrainingSettings`.

    Returns:
        The run folder; `load` makes a predictor of it.

    Raises:
        UsageError: an option is unknown or out of range, or the data cannot be used.
        DivergenceError: the loss is no longer finite.
        MemoryShortageError: the device has too little memory.
    """
    given: dict[str, Any] = {"data": data, "out": out, "adapter": adapter, "epochs": epochs, **options}
    given["adapter"] = "none" if adapter is None else adapter
    chosen, settings = divide({name: _as_text(name, value) for name, value in given.items()})
    return training_run.train(chosen, settings, _reporter(progress))


def evaluate(
    run: str | Path | Predictor,
    rows: RowsLike,
    *,
    split: str | None = None,
    slice_by: Sequence[str] = (),
    device: str = "auto",
    workers: int = -1,
) -> Evaluation:
    """Measure a trained classifier on labelled images.

    Args:
        run: run folder, or a predictor.
        rows: labelled images, in any form that `split` takes: a folder, a text such as `csv(labels.csv, image=file,
            label=label)`, a source, a manifest, a DataFrame or a list of `(path, label)`.
        split: `train`, `val` or `test`, if the rows have such splits; by default test, else val.
        slice_by: columns to report the accuracy by: `group`, `split`, `label` or another column of the rows.
        device: where to compute; a predictor stays where it is.
        workers: processes that read images; -1 chooses.

    Returns:
        Predictions and metrics; images that the run was trained on are counted if `run` is a folder.

    Raises:
        RunError: `run` is not a run folder, or is damaged.
        SourceError: the rows have no such split, or no labels.
        UsageError: no row has a column of `slice_by`.
    """
    predictor = run if isinstance(run, Predictor) else load(run, device)
    trained = frozenset() if isinstance(run, Predictor) else ledger.trained_files(Path(run))
    manifest, _ = evaluation.labelled_rows(source_of(rows), split, predictor.classes, predictor.task)
    return evaluation.evaluate(predictor, manifest, choose_workers(workers, len(manifest)), trained, slice_by)


def curves(run: str | Path | Iterable[Epoch]) -> Figure:
    """Plot losses and validation metrics by epoch.

    Args:
        run: run folder, or the epochs that `fit` yielded.

    Returns:
        A matplotlib figure, which a notebook shows.

    Raises:
        RunError: it is no run folder, or there are no epochs.
    """
    lines = list(read_metrics(Path(run))) if isinstance(run, str | Path) else [epoch.metrics() for epoch in run]
    if not lines:
        raise RunError("there are no epochs to plot; train some first")
    return plots.curves(lines)


def _reporter(progress: bool | None) -> Reporter:
    if progress is not False and in_notebook():
        return NotebookReporter()
    return Reporter(quiet=not progress, result=False)


_KINDS = {"data": "source", "adapter": "adapter", "resize": "resize"}
"""Options whose value may be settings, and the kind of these."""


def _as_text(option: str, value: Any) -> Any:
    """Return a value as the run folder stores it; raise UsageError for what has no text."""
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if option == "class_weights" and isinstance(value, Mapping):
        return json.dumps(value)
    if option in _KINDS and dataclasses.is_dataclass(value) and type(value).__module__ != "__main__":
        return spec.format(value, _KINDS[option])
    hint = "a class of your own needs to be a dataclass in a module" if option in _KINDS else "name it as module:name"
    raise UsageError(f"{option}: a run folder cannot store {type(value).__name__} as text, to resume from; {hint}")
