"""What a training run or an evaluation has shown, in words, and what to do next, drawn from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionadapt.metrics.paired import difference
from visionadapt.system.text import counted, percent, signed

FEW = 100
"""Validation images below which the interval of the accuracy is wider than most differences that matter."""
MUCH = 0.2
"""Share of the images' area from which on its loss is worth a try of another way of resizing."""
_NAMED = 2
_ELSEWHERE = (
    "Measure it on images from elsewhere, which had no part in training: visionadapt evaluate RUN --data FOLDER."
)
_USE = "Classify images with it: visionadapt predict RUN FILES."


@dataclass(frozen=True)
class Verdict:
    """Sentences that judge a classifier or a data set, the first by itself enough, and the `steps` that follow."""

    judgement: tuple[str, ...]
    steps: tuple[str, ...]


def verdict(
    summary: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    adapted: bool,
    confused: Sequence[tuple[str, str, int]] = (),
    cut: float = 0.0,
) -> Verdict | None:
    """Judge a run; None if nothing was validated.

    Args:
        summary: `summary.json`.
        evaluation: `validation/evaluation.json`.
        adapted: whether adapter layers were trained, and not only the head.
        confused: pairs of true and predicted class and how many images, the most frequent first, if they are known.
        cut: mean share of an image's area that resizing cuts away.
    """
    if not evaluation.get("pictures"):
        return None
    if evaluation.get("exact_matches") is not None:
        steps = [*_resizing(cut), *_refit(summary), _ELSEWHERE]
        return _of_several_labels(evaluation, "validation images", steps)
    if evaluation.get("accuracy") is None:
        return None
    accuracy, images = evaluation["accuracy"], int(evaluation["pictures"])
    low, high = evaluation["intervals"]["accuracy"]
    chance, better = summary.get("majority_accuracy"), _against_head(summary, images, adapted)
    useless = chance is not None and low <= chance
    judgement = [f"Not clearly better than always answering the largest class ({percent(chance)})."] if useless else []
    judgement += [told for told, _ in (better,) if told]
    steps = []
    if useless:
        steps.append("See whether the labels are right: visionadapt audit FOLDER.")
    if better[1] is False:
        steps.append("Use the solved head, which does as well in seconds (--adapter none), or label more images.")
    if accuracy < 1:
        steps += _more_images(evaluation, confused)
    steps += _resizing(cut)
    if images < FEW:
        steps.append(
            f"With {images} validation images, the accuracy may be anything from {percent(low)} to {percent(high)}: "
            f"label more{'' if summary.get('fold') else ', or cross-validate (--folds 5)'}."
        )
    if not adapted and not useless and accuracy < 1:
        steps.append("Unless you have, see what adapter layers add: leave out --adapter none. They take minutes.")
    steps += [] if useless else _refit(summary)
    steps.append(_ELSEWHERE)
    if not judgement:
        judgement = [
            "Every validation image is classified correctly."
            if accuracy == 1
            else f"Clearly better than always answering the largest class ({percent(chance)})."
            if chance is not None
            else f"{percent(accuracy)} of the validation images are classified correctly."
        ]
    return Verdict((*judgement, *_made(summary)), tuple(steps))


def _made(summary: Mapping[str, Any]) -> list[str]:
    """Say what the classifier is, where it is not simply the best epoch."""
    made = []
    among, corrected = summary.get("chosen_among", 0), summary.get("accuracy_after_choosing")
    if among > 1 and corrected is not None:
        told = f"It was chosen among {among} candidates on these images"
        made.append(f"{told}; corrected for that, expect {percent(corrected)}.")
    if summary.get("ensemble"):
        made.append(f"It is the average of {len(summary['ensemble'])} classifiers.")
    if summary.get("refit_images"):
        made.append(f"It was then trained once more, on all {summary['refit_images']} images, after these figures.")
    return made


def _refit(summary: Mapping[str, Any]) -> list[str]:
    """Advise to learn from the validation images too, where the run has not."""
    if summary.get("refit_images") or summary.get("fold") or summary.get("ensemble"):
        return []
    return ["Before use, train it with --refit, which uses all images."]


def _resizing(cut: float) -> list[str]:
    told = (
        f"Resizing cuts away {percent(cut)} of the area of the images: see whether --resize letterbox does better, "
        "which visionadapt audit FOLDER measures."
    )
    return [told] if cut >= MUCH else []


def _of_several_labels(evaluation: Mapping[str, Any], images: str, steps: Sequence[str]) -> Verdict:
    """Judge a classifier that gives an image several labels, by how often it gets every one right."""
    share, weak = evaluation["exact_matches"], _more_images(evaluation, ()) if evaluation["exact_matches"] < 1 else []
    low, high = evaluation["intervals"]["exact_matches"]
    interval = f"95 % interval {percent(low)} to {percent(high)}"
    told = f"Every label is right for {percent(share)} of {evaluation['pictures']:,} {images} ({interval})."
    return Verdict((told,), (*weak, *steps))


def _against_head(summary: Mapping[str, Any], images: int, adapted: bool) -> tuple[str, bool | None]:
    """Compare with the solved head, in words; whether the classifier is clearly better, None where it is not known."""
    head = summary.get("probe_accuracy")
    if not adapted or head is None:
        return "", None
    if summary.get("best_epoch") == 0 and not summary.get("ensemble"):
        return "No epoch was reliably better than the solved head, so the run saved that head.", False
    if "only_probe" not in summary or "val_accuracy" not in summary:
        return "", None
    gained, lost = int(summary["only_this_classifier"]), int(summary["only_probe"])
    told = against("the solved head alone", (summary["val_accuracy"], head), difference(gained, lost, images))
    return told, difference(gained, lost, images)[1] > 0


def against(
    other: str, accuracies: tuple[float, float], apart: tuple[float, float, float], several: bool = False
) -> str:
    """Compare a classifier with another one in words.

    Args:
        other: name of the other one.
        accuracies: its own, and that of the other one, in [0, 1].
        apart: their difference and its 95 % interval, in [-1, 1].
        several: whether images have several labels, so that an accuracy is the share with every label right.
    """
    more, low, high = (100 * value for value in apart)
    how = "Clearly better" if low > 0 else "Clearly worse" if high < 0 else "Not clearly better"
    both = f"{percent(accuracies[0])} against {percent(accuracies[1])}"
    both += " of the images with every label right" if several else ""
    interval = f"95 % interval {signed(low)} to {signed(high)}"
    return f"{how} than {other}: {both} ({signed(more)} points, {interval})."


def verdict_on_test(
    evaluation: Mapping[str, Any],
    validation: Mapping[str, Any],
    confused: Sequence[tuple[str, str, int]] = (),
) -> Verdict | None:
    """Judge a classifier on images that had no part in its training; None where nothing was measured.

    Args:
        evaluation: `evaluation.json` of these images.
        validation: `validation/evaluation.json` of the run; may be empty.
        confused: as for `verdict`.
    """
    if not evaluation.get("pictures"):
        return None
    if evaluation.get("exact_matches") is not None:
        return _of_several_labels(evaluation, "images", [_USE])
    if evaluation.get("accuracy") is None:
        return None
    images = int(evaluation["pictures"])
    low, high = evaluation["intervals"]["accuracy"]
    judgement = [
        f"{percent(evaluation['accuracy'])} of {counted(images, 'image')} classified correctly "
        f"(95 % interval {percent(low)} to {percent(high)})."
    ]
    before = validation.get("accuracy")
    if before is not None:
        how = "Worse than" if before > high else "Better than" if before < low else "As good as"
        judgement.append(f"{how} on the validation images of its run ({percent(before)}).")
    steps = []
    if evaluation.get("trained_on"):
        known = counted(int(evaluation["trained_on"]), "image")
        steps.append(f"Leave out what it was trained on: {known} here, which make the figures too good.")
    if before is not None and before > high:
        steps.append("See how these images differ from those of the training, and label some of them for the next one.")
    if evaluation["accuracy"] < 1:
        steps += _more_images(evaluation, confused)
    if images < FEW:
        steps.append(f"Label more than {counted(images, 'image')} for a narrower interval.")
    return Verdict(tuple(judgement), (*steps, _USE))


def _more_images(evaluation: Mapping[str, Any], confused: Sequence[tuple[str, str, int]]) -> list[str]:
    """Name what to label more of: the classes that are confused most, or else those with the lowest F1."""
    if confused and confused[0][2] > 1:
        true_class, predicted, count = confused[0]
        what = f"{true_class} and {predicted}"
        return [f"Label more images of {what} ({count} of {true_class} are taken for {predicted})."]
    weak = weakest(evaluation.get("per_class", {}))[:_NAMED]
    return [f"Label more images of {' and '.join(weak)}, the weakest by F1."] if weak else []


def weakest(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the classes that have validation images, those with the lowest F1 first."""
    known = {name: row for name, row in per_class.items() if row["support"] and row["recall"] is not None}
    return sorted(known, key=lambda name: known[name].get("f1") or 0.0)
