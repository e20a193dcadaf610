"""`Prediction`: the result for one image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from reprlib import Repr

from torch import Tensor

from visionadapt.errors import UsageError
from visionadapt.html.notebook import table
from visionadapt.html.pages import percent
from visionadapt.prediction.calibration import Calibration

_LONGEST = 120
_SHORT = Repr()
_SHORT.maxstring, _SHORT.maxtuple = 36, 3


@dataclass(frozen=True)
class Prediction:
    """What a classifier predicts for one image.

    Attributes:
        file: the image's key; empty for an image without a name.
        label: the most probable class; None if the image could not be used.
        probability: of the label, in (0, 1], calibrated on the validation images.
        probabilities: of every class, in the order of the classes; empty if the image could not be used.
        abstain: whether the probability is too low for the target precision; see `Calibration`.
        distance: dissimilarity to the training images: 1 is farther than 95 % of the validation images. NaN if the run
            did not measure it.
        problem: why the image could not be used; None for all others.
        labels: every class whose probability reaches its threshold, possibly none; where an image has exactly one
            class, only the label.
        classes: names of the probabilities.
    """

    file: str
    label: str | None = None
    probability: float = 0.0
    probabilities: tuple[float, ...] = ()
    abstain: bool = False
    distance: float = math.nan
    problem: str | None = None
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def odd(self) -> bool:
        """Whether the image is farther from the training images than 95 % of the validation images."""
        return self.distance > 1

    def __repr__(self) -> str:
        parts = [_SHORT.repr(self.file)]
        if self.problem is not None:
            parts.append(f"problem={_SHORT.repr(self.problem)}")
        elif self.labels == (self.label,):
            parts += [_SHORT.repr(self.label), f"{self.probability:.4f}"]
        else:
            parts.append(f"labels={_SHORT.repr(self.labels)}")
        parts += ["abstain"] if self.abstain else []
        parts += [f"distance {self.distance:.2f}"] if self.distance == self.distance else []
        return cut(f"Prediction({', '.join(parts)})")

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the most probable classes, or why the image could not be used."""
        if self.problem is not None:
            return table(self.file or "image", [("could not be used", self.problem)])
        rows = [(name, percent(probability)) for name, probability in self.top(3)]
        rows += [("abstains", "the probability is too low for the target precision")] if self.abstain else []
        rows += [("distance", f"{self.distance:.2f}")] if self.distance == self.distance else []
        return table(self.file or "image", rows)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their probabilities, the most probable first.

        There are C of them where k is larger, and none if the image could not be used. Of equally probable classes the
        earlier one is first.

        Raises:
            UsageError: k is less than 1.
        """
        if k < 1:
            raise UsageError(f"top({k}): give a number of classes of at least 1")
        pairs = zip(self.classes, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:k]


def predictions(
    classes: tuple[str, ...],
    calibration: Calibration,
    rows: Iterable[tuple[str, str | None]],
    features: Tensor,
    logits: Tensor,
) -> Iterator[Prediction]:
    """Yield a prediction for each row, given as its file and its problem.

    Features [B, D] and logits [B, C] are those of the rows without a problem.
    """
    probabilities = calibration.probabilities(logits)
    best, decided = probabilities.argmax(1).tolist(), calibration.decide(probabilities)
    distances = calibration.distances(features).tolist()
    usable = zip(probabilities.tolist(), best, decided, distances, strict=True)
    for file, problem in rows:
        if problem is not None:
            yield Prediction(file, problem=problem)
            continue
        row, top, chosen, distance = next(usable)
        labels, abstain = tuple(classes[place] for place in chosen), row[top] < calibration.threshold
        yield Prediction(file, classes[top], row[top], tuple(row), abstain, distance, None, labels, classes)


def cut(text: str) -> str:
    """Return a `repr` of at most 120 characters."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…)"
