"""`write_evaluation_report`: the report's page for images that had no part in training, and for two runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError
from visionadapt.evaluation.against import Comparison
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.evaluation.verdict import against, verdict_on_test
from visionadapt.html.pages import percent, render
from visionadapt.images.thumbnails import Thumbnail, thumbnail
from visionadapt.prediction.predictor import Predictor
from visionadapt.report.embedded_images import SIDE, ImageReader
from visionadapt.report.figures import accuracy_chart, confusions, metrics
from visionadapt.report.gallery import CARDS, gallery
from visionadapt.report.page import NAME, shown, triples
from visionadapt.report.run_contents import evaluated, read_run
from visionadapt.runs.hub import run_name
from visionadapt.system.storage import write_text
from visionadapt.system.text import utf8_safe


@dataclass(frozen=True)
class DifferenceCard:
    """An image that one of two classifiers has right: what each of them says, and how probable it says that is."""

    file: str
    true_class: str
    labels: tuple[str, str]
    probabilities: tuple[float, float]
    image: Thumbnail | None = None
    problem: str = ""


@dataclass(frozen=True)
class ComparedRuns:
    """What the page shows of a comparison: words, metrics of both as (name, first, second), and images."""

    names: tuple[str, str]
    verdict: str
    chance: str
    metrics: tuple[tuple[str, str, str], ...]
    only_first: tuple[DifferenceCard, ...]
    only_second: tuple[DifferenceCard, ...]


def write_evaluation_report(
    folder: Path,
    run: Path,
    evaluation: Evaluation,
    rows: Manifest,
    predictor: Predictor,
    comparison: Comparison | None = None,
) -> Path:
    """Write `report.html` of an evaluation into its folder, and return its path.

    Args:
        folder: of the evaluation.
        run: folder of the classifier's run.
        evaluation: of the `rows`.
        rows: the images.
        predictor: the classifier.
        comparison: with another classifier on the same rows.

    Raises:
        RunError: the run folder is damaged, or the page cannot be written.
    """
    trained = read_run(run)
    contents = evaluated(trained, evaluation, evaluation.figures())
    usable = [row.file for row in evaluation.predictions if row.problem is None]
    images, confused = gallery(contents, usable, rows, predictor), confusions(contents)
    page = render(
        "visionadapt.report",
        "report.html",
        **shown(contents, images),
        tested=True,
        name=utf8_safe(run_name(run)),
        finished="",
        source=utf8_safe(str(rows.source)),
        notes=list(evaluation.notes()),
        accuracy_chart=accuracy_chart(contents, "these images"),
        against_probe=None,
        curves=[],
        verdict=verdict_on_test(contents.evaluation, trained.evaluation, triples(confused)),
        confusions=confused,
        compared=None if comparison is None else _compared(comparison, rows, predictor),
        ledger=None,
    )
    write_text(folder / NAME, page)
    return folder / NAME


def _compared(comparison: Comparison, rows: Manifest, predictor: Predictor) -> ComparedRuns:
    found, names = comparison.figures(), comparison.names
    apart = (found["difference"], *found["interval"])
    tables = [
        {name: (value, limits) for name, _, value, limits in metrics(each.figures())}
        for each in (comparison.first, comparison.second)
    ]
    shares = tuple(percent(value) for value in comparison.accuracies)
    both = [("images with every label right" if comparison.several else "accuracy", shares[0], shares[1])]
    both += [(name, value[0], tables[1][name][0]) for name, value in tables[0].items() if name in tables[1]]
    first, second = (_chosen(comparison, only) for only in (comparison.only_first, comparison.only_second))
    reader = ImageReader(rows, {comparison.first.predictions[row].file for row in (*first, *second)})
    cards = [tuple(_card(comparison, row, reader, predictor) for row in chosen) for chosen in (first, second)]
    right = "get every label right" if comparison.several else "are classified correctly"
    told = (
        f"{found['only_first']} of {found['pictures']} images {right} only by {names[0]}, and "
        f"{found['only_second']} only by {names[1]} (McNemar p = {found['mcnemar']:.2g})."
    )
    verdict = against(names[1], comparison.accuracies, apart, comparison.several)
    return ComparedRuns(names, verdict, told, tuple(both), *cards)


def _chosen(comparison: Comparison, rows: Sequence[int]) -> list[int]:
    """Return the rows about which the two are surest, taken together."""
    one, two = comparison.first.predictions, comparison.second.predictions
    return sorted(rows, key=lambda row: -one[row].probability - two[row].probability)[:CARDS]


def _card(comparison: Comparison, row: int, reader: ImageReader, predictor: Predictor) -> DifferenceCard:
    one, two = comparison.first.predictions[row], comparison.second.predictions[row]
    image, problem = None, ""
    try:
        image = thumbnail(predictor.prepare.host(reader.read(one.file)), SIDE)
    except ImageError as error:
        problem = error.reason
    labels = (", ".join(one.labels) or "no class", ", ".join(two.labels) or "no class")
    truth = ", ".join(comparison.first.true_classes[row]) or "no class"
    return DifferenceCard(one.file, truth, labels, (one.probability, two.probability), image, problem)
