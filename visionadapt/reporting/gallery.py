"""The pictures that a report shows: confident mistakes, unsure answers, and what resizing did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import visionadapt.reporting.embedded_images as pictures
from visionadapt.core.records import Manifest, Source
from visionadapt.errors import ImageError, VisionAdaptError
from visionadapt.images import Preprocessing
from visionadapt.prediction.predictor import Predictor
from visionadapt.reporting.embedded_images import Pictures, Resized, Shown
from visionadapt.reporting.run_contents import RunFacts

CARDS = 12
MEASURED = 200
EXAMPLES = 4


@dataclass(frozen=True)
class Card:
    """One picture, what it is, and what the classifier takes it for."""

    file: str
    true_class: str
    label: str
    probability: float
    right: bool
    shown: Shown


@dataclass(frozen=True)
class Example:
    """One picture before and after resizing."""

    facts: Resized
    before: str
    before_size: tuple[int, int]
    after: str
    after_size: tuple[int, int]


@dataclass(frozen=True)
class Resizing:
    """What resizing did to a sample of the validation pictures.

    Attributes:
        text: the resize adapter in words.
        measured: how many pictures were looked at.
        rows: what happened, to which share of them, and how much.
        examples: those that lost or gained the most.
    """

    text: str
    measured: int
    rows: tuple[tuple[str, float, str], ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a report.

    Attributes:
        mistakes: the wrong answers of which the classifier is surest, the surest first.
        unsure: the answers of which it is least sure, the least sure first.
        resizing: None where nothing can be said about it.
        no_pictures: why no picture is shown; empty where they are.
        no_heat: why there are no heat maps; empty where there are.
    """

    mistakes: tuple[Card, ...] = ()
    unsure: tuple[Card, ...] = ()
    resizing: Resizing | None = None
    no_pictures: str = ""
    no_heat: str = ""


def gallery(
    facts: RunFacts,
    validation_files: Sequence[str],
    rows: Source | Manifest | VisionAdaptError,
    predictor: Predictor | VisionAdaptError,
) -> Gallery:
    """Choose the pictures, read them, and explain the predictions.

    Args:
        facts: the run.
        validation_files: usable validation files.
        rows: where the pictures are; or why they cannot be had.
        predictor: the classifier, for heat maps; or why it cannot be loaded.
    """
    mistakes, unsure = _chosen(facts)
    if isinstance(rows, VisionAdaptError):
        return Gallery(tuple(mistakes), tuple(unsure), no_pictures=str(rows))
    sample = pictures.evenly(validation_files, MEASURED)
    wanted = frozenset([*(card.file for card in (*mistakes, *unsure)), *sample])
    try:
        found = Pictures(rows, wanted)
    except VisionAdaptError as error:
        return Gallery(tuple(mistakes), tuple(unsure), no_pictures=str(error))
    if facts.prepare is None:
        return Gallery(no_pictures="the run has no preprocess.json")
    cards, no_heat = _with_pictures([*mistakes, *unsure], found, facts, predictor)
    return Gallery(
        tuple(cards[: len(mistakes)]),
        tuple(cards[len(mistakes) :]),
        _resizing(found, facts.prepare, sample),
        no_heat=no_heat,
    )


def _chosen(facts: RunFacts) -> tuple[list[Card], list[Card]]:
    predictions = facts.predictions
    if predictions is None:
        return [], []
    sure_first = np.argsort(-predictions.confidence, kind="stable")
    mistakes = [int(row) for row in sure_first if not predictions.correct[row]][:CARDS]
    unsure = [int(row) for row in sure_first[::-1] if int(row) not in set(mistakes)][:CARDS]

    def card(row: int) -> Card:
        true_class, label = (facts.classes[int(of[row])] for of in (predictions.truth, predictions.predicted))
        probability = float(predictions.confidence[row])
        return Card(predictions.files[row], true_class, label, probability, true_class == label, Shown())

    return [card(row) for row in mistakes], [card(row) for row in unsure]


def _with_pictures(
    cards: Sequence[Card], found: Pictures, facts: RunFacts, predictor: Predictor | VisionAdaptError
) -> tuple[list[Card], str]:
    """The cards with pictures and heat maps, and why there are no heat maps."""
    if facts.prepare is None:
        return list(cards), ""
    shown = pictures.show(found, facts.prepare, [card.file for card in cards])
    complete = [replace(card, shown=picture) for card, (picture, _) in zip(cards, shown, strict=True)]
    if isinstance(predictor, VisionAdaptError):
        return complete, str(predictor)
    there = [(place, pixels) for place, (_, pixels) in enumerate(shown) if pixels is not None]
    index = {name: number for number, name in enumerate(facts.classes)}
    classes = [index[cards[place].label] for place, _ in there]
    try:
        for (place, _), heat in zip(
            there, pictures.heats(predictor, [pixels for _, pixels in there], classes), strict=True
        ):
            complete[place] = replace(complete[place], shown=replace(complete[place].shown, heat=heat))
    except VisionAdaptError as error:
        return complete, str(error)
    return complete, ""


def _resizing(found: Pictures, prepare: Preprocessing, sample: Sequence[str]) -> Resizing | None:
    resize = prepare.resize
    measured = pictures.measure(found, resize, sample) if resize is not None else []
    if resize is None or not measured:
        return None
    height, width = resize.height_width
    return Resizing(
        f"{resize.policy} to {width} × {height} pixels",
        len(measured),
        (
            _share("cut", [one.cut for one in measured], 0.005, "of such a picture is cut away"),
            _share("padded", [one.padded for one in measured], 0.005, "of what the model sees is filling"),
            _share("stretched", [one.stretched - 1 for one in measured], 0.02, "is one side scaled more"),
            _share("enlarged", [one.enlarged - 1 for one in measured], 0.0, "is it larger than it was"),
        ),
        tuple(_examples(found, prepare, measured)),
    )


def _share(what: str, amounts: Sequence[float], least: float, words: str) -> tuple[str, float, str]:
    """The share of the pictures to which more than `least` happened, and the mean of what did, in words."""
    hit = [amount for amount in amounts if amount > least]
    mean = f"{sum(hit) / len(hit):.0%} {words}, on average" if hit else ""
    return what, len(hit) / len(amounts), mean


def _examples(found: Pictures, prepare: Preprocessing, measured: Sequence[Resized]) -> list[Example]:
    """The pictures to which the most happened."""
    ordered = sorted(measured, key=lambda one: one.cut + one.padded + (one.stretched - 1), reverse=True)
    examples = []
    for one in ordered[:EXAMPLES]:
        try:
            examples.append(Example(one, *pictures.before_after(found, prepare, one.file)))
        except ImageError:  # it vanished between two readings
            continue
    return examples
