"""`python -m visionadapt.evaluate RUN --data DIR`: measure a trained classifier on labelled images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.errors import SourceError, UsageError
from visionadapt.run_folder.options import InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from pathlib import Path

    from visionadapt.console.reporter import Reporter
    from visionadapt.core.records import Manifest, Source
    from visionadapt.evaluation.evaluation import Evaluation
    from visionadapt.tasks import TaskName

SliceBy = Annotated[list[str] | None, Parameter(negative=())]

app = shell.app(
    "evaluate",
    "python -m visionadapt.evaluate runs/first --data photos",
    "python -m visionadapt.evaluate runs/first --data 'csv(labels.csv, image=file, label=label)'",
    "python -m visionadapt.evaluate runs/first --data photos --slice-by group --out evaluation",
)

_OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "mean_average_precision",
    "macro_f1",
    "top_3",
    "top_5",
    "log_loss",
    "calibration_error",
)


@app.default
def main(
    run: str,
    /,
    *,
    data: str,
    split: str | None = None,
    slice_by: SliceBy = None,
    out: str | None = None,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Measure a trained classifier on labelled images.

    Parameters
    ----------
    run
        Run folder of the trained classifier.
    data
        Folder of class folders (or of train/, val/, test/ with such), or csv(labels.csv, image=file, label=label).
    split
        train, val or test, if the data has such splits; by default test, else val.
    slice_by
        Column to report accuracy by: group, split, label, or another column of the table; may be repeated.
    out
        Folder for the tables and the figure; by default `evaluation` in the run folder.
    """
    from pathlib import Path

    from visionadapt.data.loading import choose_workers
    from visionadapt.evaluation.evaluate import evaluate
    from visionadapt.evaluation.writing import write_evaluation
    from visionadapt.run_folder import ledger, saved
    from visionadapt.sources.opening import open_source

    reporter = (output or OutputOptions()).reporter()
    inference = inference or InferenceOptions()
    predictor = saved.load(run, inference.device, weights=inference.weights)
    source, folder = open_source(data), Path(out) if out else Path(run) / "evaluation"
    _check_out(folder, source)
    rows, part = labelled_rows(source, split, predictor.classes, predictor.task)
    if predictor.calibration.images == 0:
        reporter.say(str(predictor.calibration))
    reporter.say(f"{len(rows)} pictures{f' of {part}' if part else ''}")
    processes, trained = choose_workers(inference.workers, len(rows)), ledger.trained_files(Path(run))
    evaluation = evaluate(predictor, rows, processes, trained, slice_by or ())
    write_evaluation(folder, evaluation)
    _tell(reporter, evaluation, folder)
    reporter.event("evaluation", {"out": str(folder), **evaluation.figures()})
    reporter.answer(str(folder))


def labelled_rows(
    source: Source, split: str | None, known: tuple[str, ...], task: TaskName = "single"
) -> tuple[Manifest, str]:
    """The rows of one part of a source, and the part's name; classes that `known` lacks come behind it.

    Raises:
        SourceError: the source has no such part, or no row of it has a label.
        SplitError: a row has several labels, and the task is `single`.
    """
    from visionadapt.core.naming import natural_key
    from visionadapt.core.records import Manifest
    from visionadapt.data.splits import task_of

    records = list(source)
    parts = {record.split for record in records if record.split is not None}
    if split is not None and split not in parts:
        raise SourceError(f"--split {split}: {source} has {', '.join(sorted(parts)) or 'no parts'}")
    part = split or next((name for name in ("test", "val", "train") if name in parts), None)
    chosen = [record for record in records if part is None or record.split == part]
    if not chosen:
        raise SourceError(f"{source} holds no pictures")
    found = {label for record in chosen for label in record.labels}
    if not found:
        raise SourceError(f"{source}: no picture has a label to compare with; give class folders, or label=…")
    classes = (*known, *sorted(found - set(known), key=natural_key))
    manifest = Manifest(source, chosen, classes)
    task_of(task, manifest)
    return manifest, part or ""


def _check_out(folder: Path, source: Source) -> None:
    """Raise UsageError where an evaluation would replace something else, or lie among the pictures."""
    from visionadapt.sources import FolderSource

    if folder.is_dir() and any(folder.iterdir()) and not (folder / "evaluation.json").exists():
        raise UsageError(f"{folder} holds other things than an evaluation; give another --out")
    if isinstance(source, FolderSource) and folder.resolve().is_relative_to(os.path.realpath(source.root)):
        raise UsageError(f"--out {folder} lies in {source.root}, among the pictures; give a folder elsewhere")


def _tell(reporter: Reporter, evaluation: Evaluation, folder: Path) -> None:
    figures = evaluation.figures()
    for note in evaluation.notes():
        reporter.say(note)
    rows = {"pictures": f"{figures['pictures']} of {figures['rows']} rows ({figures['rejected']} rejected)"}
    rows |= {name.replace("_", " "): _with_interval(figures, name) for name in _OVERALL if name in figures}
    rows |= {f"class {name}": _of_class(values) for name, values in figures["per_class"].items() if values["support"]}
    for column, values in figures.get("slices", {}).items():
        rows |= {f"{column} {row['value'] or '(none)'}": _of_slice(row) for row in values}
    rows["tables and picture"] = str(folder)
    reporter.table("evaluation", rows)


def _with_interval(figures: dict[str, Any], name: str) -> str:
    value, limits = figures[name], figures["intervals"].get(name)
    if value is None:
        return "none: no usable picture of a known class"
    return f"{value:.4f}" + (f" (95 %: {limits[0]:.4f} to {limits[1]:.4f})" if limits else "")


def _of_class(values: dict[str, Any]) -> str:
    precision = "–" if values["precision"] is None else f"{values['precision']:.3f}"
    average = f"average precision {values['average_precision']:.3f}, " if "average_precision" in values else ""
    return f"{average}recall {values['recall']:.3f}, precision {precision}, {values['support']} pictures"


def _of_slice(row: dict[str, Any]) -> str:
    if row["accuracy"] is None:
        return f"no usable picture ({row['rejected']} rejected)"
    low, high = row["interval"]
    return f"accuracy {row['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), {row['pictures']} pictures"


if __name__ == "__main__":
    shell.main(app)
