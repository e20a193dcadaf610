"""`write_report`: make `report.html` from a run folder."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from visionadapt.errors import RunError, VisionAdaptError
from visionadapt.evaluation.verdict import verdict
from visionadapt.html.pages import render
from visionadapt.prediction.predictor import Predictor
from visionadapt.report.figures import (
    Confusions,
    accuracy_chart,
    against_probe,
    confusions,
    curves,
    metrics,
    reliability_charts,
    weakest_classes,
)
from visionadapt.report.gallery import Gallery, gallery
from visionadapt.report.ledger_summary import LedgerSummary, summarise_ledger
from visionadapt.report.reproducibility import command, hashes, plan_rows, settings_rows, times, versions
from visionadapt.report.run_contents import RunContents, read_run
from visionadapt.runs import saved
from visionadapt.sources.opening import RowsLike
from visionadapt.system.storage import write_text
from visionadapt.system.text import utf8_safe

NAME = "report.html"
MOST_SHOWN = 20
"""Classes whose metrics are shown at once, the weakest first."""
MOST_CLASSES = 200
"""Classes whose metrics are shown, most of them after unfolding."""


def write_report(
    run: str | Path,
    rows: RowsLike | VisionAdaptError | None = None,
    predictor: Predictor | None = None,
    weights: str | Path | None = None,
) -> Path:
    """Write the report of a run into its folder, replacing an earlier one. What the folder lacks is left out.

    Args:
        run: run folder.
        rows: the validation images, in any form that `split` takes; None leaves them out, and an error is shown as
            the reason.
        predictor: the trained classifier, if it is loaded already.
        weights: path of the backbone's weights, if they have moved since training.

    Returns:
        The path of the report.

    Raises:
        RunError: `run` is not a run folder, one of its files is damaged, or the report cannot be written.
    """
    folder = Path(run)
    contents, ledger = read_run(folder), summarise_ledger(folder)
    source = rows if rows is not None else RunError("no source of images was given")
    classifier = predictor or _load(folder, weights)
    try:
        images = gallery(contents, ledger.validation_files if ledger else (), source, classifier)
        page = _rendered(contents, ledger, images)
    except (AttributeError, ArithmeticError, LookupError, TemplateError, TypeError, ValueError) as error:
        if predictor is not None:  # a run of this process, whose files are its own
            raise
        raise RunError(f"{folder} holds results that are not this version's ({error}); train again") from error
    write_text(folder / NAME, page)
    return folder / NAME


def _load(run: Path, weights: str | Path | None) -> Predictor | VisionAdaptError:
    """Load the run's classifier, or return why it cannot be loaded."""
    try:
        return saved.load(run, weights=weights)
    except VisionAdaptError as error:
        return error


def _rendered(run: RunContents, ledger: LedgerSummary | None, images: Gallery) -> str:
    confused = confusions(run)
    cut = images.resizing.cut if images.resizing else 0.0
    adapted = run.options.get("adapter", "none") != "none"
    return render(
        "visionadapt.report",
        "report.html",
        **shown(run, images),
        tested=False,
        name=utf8_safe(run.folder.absolute().name),
        finished=_finished(run.folder),
        accuracy_chart=accuracy_chart(run),
        against_probe=against_probe(run),
        curves=curves(run),
        verdict=verdict(run.summary, run.evaluation, adapted=adapted, confused=triples(confused), cut=cut),
        confusions=confused,
        ledger=ledger,
        times=times(run),
        plan=list(plan_rows(run)),
        command=command(run),
        settings=settings_rows(run),
        versions=versions(run),
        hashes=hashes(run),
    )


def shown(run: RunContents, images: Gallery) -> dict[str, Any]:
    """Return what every page of `report.html` shows: the metrics, the classes, the calibration and the images."""
    return {
        "run": run,
        "metrics": list(metrics(run.evaluation)),
        "classes": weakest_classes(run),
        "most_shown": MOST_SHOWN,
        "most_classes": MOST_CLASSES,
        "reliability": reliability_charts(run),
        "gallery": images,
    }


def triples(confused: Confusions | None) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as a verdict takes them: true class, predicted class, number of images."""
    return [(true_class, label, count) for true_class, label, count, _ in confused.pairs] if confused else []


def _finished(run: Path) -> str:
    """Time to the minute at which the last file of a finished run was written; empty for an unfinished run."""
    summary = run / "summary.json"
    if not summary.exists():
        return ""
    return datetime.datetime.fromtimestamp(summary.stat().st_mtime).astimezone().strftime("%d %B %Y, %H:%M")
