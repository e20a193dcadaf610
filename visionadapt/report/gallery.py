"""The images of the report: confident mistakes, uncertain predictions, and the effect of resizing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from visionadapt.auditing.resizing import ResizeEffect, effect
from visionadapt.errors import ImageError, VisionAdaptError
from visionadapt.html.pages import percent
from visionadapt.images import Preprocessing
from visionadapt.images.thumbnails import Thumbnail, thumbnail
from visionadapt.metrics.multilabel import losses
from visionadapt.prediction.predictor import Predictor
from visionadapt.report.embedded_images import SIDE, ImageReader, heat_map_overlays
from visionadapt.report.run_contents import RunContents, ValidationLabels
from visionadapt.sources.opening import RowsLike

CARDS = 6
CLAIMS = 4
"""Classes of one image that a card tells of at most."""
MEASURED = 200
EXAMPLES = 4


@dataclass(frozen=True)
class Claim:
    """The probability of a class, whether the prediction is right about it, and the class that the label has instead.

    Where an image has any number of classes, `labelled` is the class itself or empty.
    """

    name: str
    probability: float
    right: bool
    labelled: str


@dataclass(frozen=True)
class PredictionCard:
    """A prediction, and its image as the model sees it, without and with heat map of the class of the first claim.

    `problem` says why there is no image.
    """

    file: str
    claims: tuple[Claim, ...]
    image: Thumbnail | None = None
    heat: Thumbnail | None = None
    problem: str = ""


@dataclass(frozen=True)
class ResizeExample:
    """An image before and after resizing; `size` is its original width and height."""

    file: str
    size: tuple[int, int]
    effect: ResizeEffect
    before: Thumbnail
    after: Thumbnail


@dataclass(frozen=True)
class ResizeSummary:
    """The effect of resizing on a sample of the validation images.

    `effects` has the name of each effect, the share of images it applies to, and its mean over these in words;
    `examples` the images with the strongest effects. `cut` is the mean share of an image's area that is cut away.
    """

    adapter: str
    measured: int
    effects: tuple[tuple[str, float, str], ...]
    examples: tuple[ResizeExample, ...]
    cut: float = 0.0


@dataclass(frozen=True)
class Gallery:
    """All images of a report: wrong predictions, the most confident first; others, the least confident first; resizing.

    Where images have any number of classes, those of highest loss take the place of the predictions. `no_images` and
    `no_heat` say why there are no images or heat maps.
    """

    mistakes: Sequence[PredictionCard] = field(default_factory=tuple)
    unsure: Sequence[PredictionCard] = field(default_factory=tuple)
    lossy: Sequence[PredictionCard] = field(default_factory=tuple)
    resizing: ResizeSummary | None = None
    no_images: str = ""
    no_heat: str = ""


def gallery(
    run: RunContents,
    validation_files: Sequence[str],
    rows: RowsLike | VisionAdaptError,
    predictor: Predictor | VisionAdaptError,
) -> Gallery:
    """Choose images, read them, and explain the predictions by heat maps.

    `validation_files` are the keys of the usable validation rows. An error in place of rows or predictor explains why
    there are no images or no heat maps.
    """
    chosen = _chosen(run)
    if isinstance(rows, VisionAdaptError):
        return replace(chosen, no_images=str(rows))
    if run.prepare is None:
        return Gallery(no_images="the run has no preprocess.json")
    sample = validation_files[:: max(1, -(-len(validation_files) // MEASURED))]
    parts = (chosen.mistakes, chosen.unsure, chosen.lossy)
    try:
        reader = ImageReader(rows, {*(card.file for part in parts for card in part), *sample})
    except VisionAdaptError as error:
        return replace(chosen, no_images=str(error))
    cards, no_heat = _illustrated([card for part in parts for card in part], reader, run, predictor)
    resizing, following = _resizing(reader, run.prepare, sample), iter(cards)
    mistakes, unsure, lossy = (tuple(islice(following, len(part))) for part in parts)
    return Gallery(mistakes, unsure, lossy, resizing, no_heat=no_heat)


def _chosen(run: RunContents) -> Gallery:
    """Return the cards without images."""
    if run.labels is not None:
        return Gallery(lossy=_lossy(run.labels, run.classes))
    predictions = run.predictions
    if predictions is None:
        return Gallery()
    confident_first = np.argsort(-predictions.confidence, kind="stable")
    mistakes = [int(row) for row in confident_first if not predictions.correct[row]][:CARDS]
    unsure = [int(row) for row in confident_first[::-1] if int(row) not in set(mistakes)][:CARDS]

    def card(row: int) -> PredictionCard:
        true_class, label = (run.classes[int(of[row])] for of in (predictions.truth, predictions.predicted))
        claim = Claim(label, float(predictions.confidence[row]), label == true_class, true_class)
        return PredictionCard(predictions.files[row], (claim,))

    return Gallery([card(row) for row in mistakes], [card(row) for row in unsure])


def _lossy(labels: ValidationLabels, classes: Sequence[str]) -> list[PredictionCard]:
    """Return the images of highest loss with the classes that they are wrong about, or the one that costs most."""
    cards = []
    for row in np.argsort(-losses(labels.probabilities, labels.truth), kind="stable")[:CARDS]:
        truth, found, probabilities = labels.truth[row], labels.predicted[row], labels.probabilities[row]
        costly_first = np.argsort(np.where(truth, probabilities, 1 - probabilities), kind="stable")
        wrong = [int(place) for place in costly_first if truth[place] != found[place]] or [int(costly_first[0])]
        claims = (
            Claim(
                classes[place],
                float(probabilities[place]),
                bool(truth[place] == found[place]),
                classes[place] if truth[place] else "",
            )
            for place in wrong[:CLAIMS]
        )
        cards.append(PredictionCard(labels.files[int(row)], tuple(claims)))
    return cards


def _illustrated(
    cards: list[PredictionCard],
    reader: ImageReader,
    run: RunContents,
    predictor: Predictor | VisionAdaptError,
) -> tuple[list[PredictionCard], str]:
    """Add images and heat maps to the cards; return also why there are no heat maps."""
    assert run.prepare is not None
    cards, images = list(cards), {}
    for place, card in enumerate(cards):
        try:
            images[place] = run.prepare.host(reader.read(card.file))
            cards[place] = replace(card, image=thumbnail(images[place], SIDE))
        except ImageError as error:
            cards[place] = replace(card, problem=error.reason)
    if isinstance(predictor, VisionAdaptError):
        return cards, str(predictor)
    explained = [run.classes.index(cards[place].claims[0].name) for place in images]
    overlays = heat_map_overlays(predictor, list(images.values()), explained)
    try:
        for place, heat in zip(images, overlays, strict=True):
            cards[place] = replace(cards[place], heat=heat)
    except VisionAdaptError as error:
        return cards, str(error)
    return cards, ""


def _resizing(reader: ImageReader, prepare: Preprocessing, sample: Sequence[str]) -> ResizeSummary | None:
    resize = prepare.resize
    if resize is None:
        return None
    sizes = {file: size for file in sample if (size := reader.upright_size(file)) is not None}
    effects = {file: effect(resize, *size) for file, size in sizes.items()}
    if not effects:
        return None
    height, width = resize.height_width
    cut, padded, stretched, scales = zip(*effects.values(), strict=True)
    return ResizeSummary(
        f"{resize.policy} to {width} × {height} pixels",
        len(effects),
        (
            _affected("cropped", cut, 0.005, "{} of the image is cut away"),
            _affected("padded", padded, 0.005, "{} of the model's input is padding"),
            _affected("stretched", stretched, 0.02, "one side is scaled {} more"),
            _affected("enlarged", [scale - 1 for scale in scales], 0.0, "the image becomes {} larger"),
        ),
        tuple(_examples(reader, prepare, sizes, effects)),
        sum(cut) / len(cut),
    )


def _affected(name: str, amounts: Sequence[float], least: float, words: str) -> tuple[str, float, str]:
    """Share of the images with an effect of more than `least`, and the mean over these in words."""
    affected = [amount for amount in amounts if amount > least]
    mean = f"{words.format(percent(sum(affected) / len(affected), 0))}, on average" if affected else ""
    return name, len(affected) / len(amounts), mean


def _examples(
    reader: ImageReader,
    prepare: Preprocessing,
    sizes: Mapping[str, tuple[int, int]],
    effects: Mapping[str, ResizeEffect],
) -> Iterator[ResizeExample]:
    """Show the images with the strongest effects."""
    strongest = sorted(effects, key=lambda file: sum(effects[file][:3]), reverse=True)
    for file in strongest[:EXAMPLES]:
        try:
            pixels = prepare.decode.decode(reader.read(file), file).pixels
        except ImageError:  # the file has disappeared since it was measured
            continue
        before, after = thumbnail(pixels, SIDE), thumbnail(prepare.after_decode(pixels), SIDE)
        height, width = sizes[file]
        yield ResizeExample(file, (width, height), effects[file], before, after)
