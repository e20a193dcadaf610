"""`write_report`: from a run folder to `report.html`."""

from __future__ import annotations

import datetime
from pathlib import Path

import visionadapt.reporting.figures as figures
import visionadapt.reporting.gallery as gallery
import visionadapt.reporting.reproducibility as reproducibility
from visionadapt.core.records import Manifest, Source
from visionadapt.errors import RunError, VisionAdaptError
from visionadapt.html.pages import render
from visionadapt.prediction.predictor import Predictor
from visionadapt.reporting.ledger_summary import RowFacts, read_rows
from visionadapt.reporting.run_contents import RunFacts, read_run
from visionadapt.run_folder import saving
from visionadapt.system.storage import write_text
from visionadapt.system.text import utf8_safe

NAME = "report.html"


def write_report(
    run: str | Path,
    rows: Source | Manifest | VisionAdaptError | None = None,
    predictor: Predictor | None = None,
    weights: str | Path | None = None,
) -> Path:
    """Write a run's report into its folder, in place of an earlier one. What the folder lacks, the report lacks.

    Args:
        run: the run folder.
        rows: where the validation pictures are; None leaves them out, an error says in the report why they are.
        predictor: the trained classifier, where it is loaded already.
        weights: the backbone's weights, where they lie elsewhere than in training.

    Returns:
        The path of the report.

    Raises:
        RunError: it is no run folder, a file of it is damaged, or the report cannot be written.
    """
    run = Path(run)
    facts = read_run(run)
    found = read_rows(run)
    pictures = gallery.gallery(
        facts,
        found.validation_files if found else (),
        rows if rows is not None else RunError("the pictures were not given"),
        predictor or _load(run, weights),
    )
    write_text(run / NAME, _rendered(facts, found, pictures))
    return run / NAME


def _load(run: Path, weights: str | Path | None) -> Predictor | VisionAdaptError:
    """The run's classifier; or why it cannot be had, which the report then says."""
    try:
        return saving.load(run, weights=weights)
    except VisionAdaptError as error:
        return error


def _rendered(facts: RunFacts, rows: RowFacts | None, pictures: gallery.Gallery) -> str:
    classes, total = figures.class_rows(facts, rows)
    return render(
        "visionadapt.reporting",
        "report.html",
        name=utf8_safe(facts.folder.absolute().name),
        facts=facts,
        made=_finished(facts.folder),
        answer=figures.answer(facts),
        figures=list(figures.further_figures(facts.evaluation)),
        curves=figures.curves(facts),
        confusions=figures.confusions(facts),
        classes=classes,
        classes_in_all=total,
        calibration=figures.calibration(facts),
        gallery=pictures,
        rows=rows,
        times=reproducibility.times(facts),
        plan=list(reproducibility.plan_rows(facts)),
        command=reproducibility.command(facts),
        settings=reproducibility.settings_rows(facts),
        versions=reproducibility.versions(facts),
        hashes=reproducibility.hashes(facts),
    )


def _finished(run: Path) -> str:
    """When the last file that a finished run writes was written, to the minute; empty for an unfinished run."""
    summary = run / "summary.json"
    if not summary.exists():
        return ""
    return datetime.datetime.fromtimestamp(summary.stat().st_mtime).astimezone().strftime("%d %B %Y, %H:%M")
