"""`python -m visionadapt.evaluate RUN --data DIR`: measure a trained classifier on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.runs.options import Exclude, InferenceOptions, OutputOptions
from visionadapt.system.storage import check_outside
from visionadapt.system.text import counted

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.core.records import Source
    from visionadapt.evaluation.against import Comparison
    from visionadapt.evaluation.evaluation import Evaluation
    from visionadapt.prediction.predictor import Predictor

SliceBy = Annotated[list[str] | None, Parameter(negative=())]

app = shell.app(
    "evaluate",
    "python -m visionadapt.evaluate runs/first --data photos",
    "python -m visionadapt.evaluate runs/first --data 'csv(labels.csv, image=file, label=label)'",
    "python -m visionadapt.evaluate runs/first --data photos --slice-by group --out evaluation",
    "python -m visionadapt.evaluate runs/second --data photos --against runs/first",
)


@app.default
def main(
    run: str,
    /,
    *,
    data: str,
    split: str | None = None,
    slice_by: SliceBy = None,
    against: str | None = None,
    out: str | None = None,
    exclude: Exclude = None,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Measure a trained classifier on labelled images.

    Parameters
    ----------
    run
        Run folder of the trained classifier, or hf://ORG/NAME for one on the Hugging Face hub.
    data
        Folder of class folders (or of train/, val/, test/ with such), or csv(labels.csv, image=file, label=label).
    split
        train, val or test, if the data has such splits; by default test, else val.
    slice_by
        Column to report accuracy by: group, split, label, or another column of the table; may be repeated.
    against
        Run folder, or hf://ORG/NAME, of another classifier to measure on the same images, and compare with.
    out
        Folder for the report and the tables; by default evaluation in the run folder. One on the hub needs it.
    exclude
        The findings.csv of an audit, with drop or relabel in its column action for rows to leave out or correct.
    """
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.data.loading import choose_workers
    from visionadapt.evaluation.evaluate import evaluate, labelled_rows
    from visionadapt.evaluation.writing import write_evaluation
    from visionadapt.report.evaluation_page import write_evaluation_report
    from visionadapt.runs import ledger, saved
    from visionadapt.runs.hub import local_run, on_hub
    from visionadapt.sources.edited import edited_rows
    from visionadapt.sources.opening import open_source

    inference = inference or InferenceOptions()
    if out is None and on_hub(run):
        raise UsageError(f"--out is missing: {run} is no folder of yours; name a folder for the evaluation")
    run_folder = local_run(run)
    predictor = saved.load(run_folder, inference.device, weights=inference.weights)
    source, folder = open_source(data), Path(out) if out else run_folder / "evaluation"
    _check_out(folder, source)
    rows, name = labelled_rows(edited_rows(source, exclude, reporter.say), split, predictor.classes, predictor.task)
    _say_what(reporter, predictor, len(rows), name)
    processes, trained = choose_workers(inference.workers, len(rows)), ledger.trained_files(run_folder)
    evaluation = evaluate(predictor, rows, processes, trained, slice_by or ())
    write_evaluation(folder, evaluation)
    other = None if against is None else evaluate(saved.load(against, inference.device), rows, processes)
    comparison = _compared(folder, evaluation, other, None if against is None else _names(run, against))
    page = write_evaluation_report(folder, run_folder, evaluation, rows, predictor, comparison)
    _report(reporter, page, evaluation, comparison)


def _report(reporter: Reporter, page: Path, evaluation: Evaluation, comparison: Comparison | None) -> None:
    """Print what was measured, and where its page is."""
    from visionadapt.console.summaries import comparison_rows, evaluation_rows

    for note in evaluation.notes():
        reporter.say(note)
    metrics = evaluation.figures()
    told = {} if comparison is None else comparison_rows(comparison)
    reporter.table("evaluation", {**evaluation_rows(metrics), **told, "report": str(page)})
    reporter.event("evaluation", {"out": str(page.parent), "report": str(page), **metrics})
    reporter.answer(str(page.parent))


def _say_what(reporter: Reporter, predictor: Predictor, rows: int, split: str) -> None:
    """Print how many images of which split are measured, and what is missing of the classifier."""
    if predictor.calibration.images == 0:
        reporter.say(str(predictor.calibration))
    reporter.say(f"{counted(rows, 'image')}{f' of {split}' if split else ''}")


def _compared(
    folder: Path, evaluation: Evaluation, other: Evaluation | None, names: tuple[str, str] | None
) -> Comparison | None:
    """Write the comparison with another evaluation of the same rows, in place of an earlier one."""
    from visionadapt.evaluation.against import FILES, compare, write_comparison

    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    if other is None or names is None:
        return None
    comparison = compare(evaluation, other, names)
    write_comparison(folder, comparison)
    return comparison


def _names(run: str, other: str) -> tuple[str, str]:
    """Return the names of two run folders, or their paths if they have the same name."""
    names = Path(run).absolute().name, Path(other).absolute().name
    return names if names[0] != names[1] else (run, other)


def _check_out(folder: Path, source: Source) -> None:
    """Raise UsageError if an evaluation would replace something else, or be written among the images."""
    from visionadapt.sources import FolderSource

    if folder.is_dir() and any(folder.iterdir()) and not (folder / "evaluation.json").exists():
        raise UsageError(f"--out {folder} contains other files than an evaluation; give another folder")
    if isinstance(source, FolderSource):
        check_outside("--out", folder, source.root)


if __name__ == "__main__":
    shell.main(app)
