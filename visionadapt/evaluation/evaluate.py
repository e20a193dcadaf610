"""Evaluate a trained classifier on labelled images: choose the rows, predict them, and compare with their labels."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Manifest, Source
from visionadapt.core.spec import suggestion
from visionadapt.data.splits import task_of
from visionadapt.errors import SourceError, UsageError
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.multilabel import MultiLabelEvaluation
from visionadapt.evaluation.single import SingleLabelEvaluation
from visionadapt.prediction.prediction import Prediction
from visionadapt.prediction.predictor import Predictor
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.text import first_of
from visionadapt.tasks import TaskName, plain_task

EVALUATIONS: Mapping[TaskName, type[Evaluation]] = {
    kind.task: kind for kind in (SingleLabelEvaluation, MultiLabelEvaluation)
}


def evaluate(
    predictor: Predictor,
    rows: RowsLike,
    workers: int = 0,
    trained: Container[str] = (),
    slice_by: Sequence[str] = (),
) -> Evaluation:
    """Predict every labelled row and compare with its labels; the result is of the classifier's task.

    The rows, in any form that `split` takes, may have classes that the classifier does not know. `trained` has the
    SHA-256 of the training files; `slice_by` names columns to report the accuracy by: `label`, `group`, `split`, or a
    further one of the rows. Raise UsageError if no row has such a column, or the task has no accuracy to slice.
    """
    if slice_by and not plain_task(predictor.task).has_accuracy:
        raise UsageError("--slice-by reports the accuracy, which images of several classes do not have; leave it out")
    manifest = manifest_of(rows)
    columns = slice_columns(manifest, slice_by)
    predictions: list[Prediction] = []
    truths: list[tuple[str, ...]] = []
    trained_on = 0
    for prediction, finding in predictor.stream(manifest, workers):
        predictions.append(prediction)
        truths.append(manifest[finding.index].labels)
        trained_on += finding.sha256 in trained
    return EVALUATIONS[predictor.task](
        predictor.classes, tuple(predictions), tuple(truths), predictor.calibration, columns, trained_on
    )


def labelled_rows(
    rows: Source | Manifest, split: str | None, known: tuple[str, ...], task: TaskName = "single"
) -> tuple[Manifest, str]:
    """Return the rows of one split and its name; classes that are not `known` to the classifier follow those that are.

    Without `split`, these are the last of train, val and test that the data has, or all rows if it has none. Raise
    SourceError if there is no such split, no label in it, or only classes that are not known; SplitError if a row has
    several labels and the task is `single`.
    """
    source, records = (rows.source if isinstance(rows, Manifest) else rows), list(rows)
    splits = {record.split for record in records if record.split is not None}
    if split is not None and split not in splits:
        there = ", ".join(sorted(splits)) or "no splits; leave out --split"
        raise SourceError(f"--split {split}: {source} has {there}")
    name = split or next((each for each in ("test", "val", "train") if each in splits), None)
    chosen = [record for record in records if name is None or record.split == name]
    if not chosen:
        raise SourceError(f"{source} has no images; name a folder or a table that has some")
    found = {label for record in chosen for label in record.labels}
    if not found:
        advice = getattr(source, "label_advice", None) or "give class folders, or label=…"
        raise SourceError(f"{source}: no image has a label to compare with; {advice}")
    if not found & set(known):
        raise SourceError(
            f"{source}: its classes ({first_of(sorted(found, key=natural_key), 3)}) are none of the classifier's "
            f"({first_of(known, 3)}); name them alike"
        )
    manifest = Manifest(source, chosen, (*known, *sorted(found - set(known), key=natural_key)))
    task_of(task, manifest)
    return manifest, name or ""


def slice_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """Return the value of every row in some columns; raise UsageError where no row has one."""
    own = {"label", "group", "split"}
    values: dict[str, list[str | None]] = {name: [] for name in names}
    known: set[str] = set()
    for record in manifest if names else ():
        known |= {*record.columns, *(name for name in own if getattr(record, name) is not None)}
        for name, column in values.items():
            column.append(getattr(record, name) if name in own else record.columns.get(name))
    for name in names:
        if name not in known:
            raise UsageError(
                f"--slice-by {name!r}: no row has such a column{suggestion(name, known)} "
                f"(columns: {', '.join(sorted(known, key=natural_key)) or 'none'})"
            )
    return {name: tuple(column) for name, column in values.items()}
