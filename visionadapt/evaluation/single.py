"""Evaluation of a classifier that gives an image exactly one class."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import natural_key
from visionadapt.evaluation import plots
from visionadapt.evaluation.evaluation import Evaluation, Table, interval, limits_of, number
from visionadapt.metrics import intervals, probabilities
from visionadapt.system.text import percent
from visionadapt.tasks import ConfusionMatrix, TaskName

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class SingleLabelEvaluation(Evaluation):
    """The result of an evaluation where an image has exactly one class."""

    task: ClassVar[TaskName] = "single"
    rates: ClassVar[tuple[str, ...]] = ("recall", "precision", "f1")
    unknown_note: ClassVar[str] = "its {count} images are in no metric"
    plots: ClassVar[tuple[str, ...]] = ("confusion", "reliability", "losses")

    @property
    def headline(self) -> tuple[str, float]:
        """Accuracy."""
        return "accuracy", self.matrix.accuracy

    @cached_property
    def labels(self) -> tuple[str | None, ...]:
        """True class of every row; None where it has none."""
        return tuple(own[0] if own else None for own in self.true_classes)

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """Indices of the rows that the metrics are computed on: usable, and of a class that the classifier knows."""
        known = set(self.classes)
        rows = enumerate(zip(self.predictions, self.labels, strict=True))
        return tuple(place for place, (row, label) in rows if row.problem is None and label in known)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Class indices of the counted rows: int64 [N]."""
        return self._indices([self.labels[row] for row in self.counted])

    @cached_property
    def matrix(self) -> ConfusionMatrix:
        """Confusion matrix of the counted rows."""
        predicted = self._indices([self.predictions[row].label for row in self.counted])
        return ConfusionMatrix.of(self.truth, predicted, len(self.classes))

    @property
    def counts(self) -> ConfusionMatrix:
        """The confusion matrix."""
        return self.matrix

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which of the counted rows are classified correctly: bool [N]."""
        return np.array([self.predictions[row].label == self.labels[row] for row in self.counted], dtype=np.bool_)

    def tables(self, figures: Mapping[str, Any]) -> dict[str, Table]:
        """Return the tables of `figures()` by file name: per class, confusion matrix, and slices if there are any."""
        matrix = [(name, *row) for name, row in zip(self.classes, self.matrix.counts.tolist(), strict=True)]
        tables = {**super().tables(figures), "confusion_matrix.csv": (("true class", *self.classes), matrix)}
        if self.slices:
            header = ("column", "value", "pictures", "rejected", *limits_of("accuracy"))
            counts = ("value", "pictures", "rejected", "accuracy")
            tables["slices.csv"] = (
                header,
                [
                    (name, *(row[count] for count in counts), *(row["interval"] or (None, None)))
                    for name, rows in figures["slices"].items()
                    for row in rows
                ],
            )
        return tables

    def images(self) -> dict[str, bytes]:
        """Return the confusion matrix as PNG, if matplotlib is installed."""
        if find_spec("matplotlib") is None:
            return {}
        return {"confusion_matrix.png": _confusion_image(self.classes, self.matrix)}

    def figures(self) -> dict[str, Any]:
        """Return every metric as plain data, in addition those of the slices."""
        return {**super().figures(), "slices": {name: self._slice(column) for name, column in self.slices.items()}}

    def _losses(self) -> NDArray[np.float64]:
        return probabilities.losses(self.probabilities, self.truth)

    def _plotted(self, what: str) -> Figure:
        if what == "confusion":
            return plots.confusion_matrix(self.classes, self.matrix)
        return plots.reliability(self.probabilities.max(axis=1, initial=0), self.correct)

    def _judged(self, row: int) -> str:
        found = self.predictions[row]
        return f"{found.label} {percent(found.probability, 0)}\nlabelled {self.labels[row]}"

    def _overall(self) -> tuple[dict[str, float], dict[str, intervals.Interval]]:
        matrix, n = self.matrix, len(self.counted)
        loss = probabilities.losses(self.probabilities, self.truth)
        confidence = self.probabilities.max(axis=1, initial=0)
        values = {
            "accuracy": matrix.accuracy,
            "balanced_accuracy": matrix.balanced_accuracy,
            "macro_f1": matrix.macro_f1,
            "log_loss": float(loss.mean()) if n else math.nan,
            "calibration_error": probabilities.calibration_error(confidence, self.correct),
        }
        limits = {
            "accuracy": intervals.share(int(np.trace(matrix.counts)), n),
            "balanced_accuracy": intervals.balanced_accuracy(matrix.counts),
            "macro_f1": intervals.macro_f1(matrix.counts),
            "log_loss": intervals.log_loss(loss),
            "calibration_error": intervals.calibration_error(confidence, self.correct),
        }
        for count in (3, 5):
            if count < len(self.classes):
                hits = probabilities.in_top(self.probabilities, self.truth, count)
                values[f"top_{count}"] = float(hits.mean()) if n else math.nan
                limits[f"top_{count}"] = intervals.share(int(hits.sum()), n)
        return values, limits

    def _columns(self) -> dict[str, Sequence[float] | NDArray[Any]]:
        return {"support": self.matrix.support}

    def _further(self) -> dict[str, Any]:
        """The effect of the calibration on the metrics, and the precision of the predictions that do not abstain.

        What was fitted to the validation split is under `fitted`; the rest is measured on the counted images.
        """
        temperature = self.calibration.temperature
        raw = probabilities.tempered(self.probabilities, temperature)
        kept = np.array([not self.predictions[row].abstain for row in self.counted], dtype=np.bool_)
        right, answered = int((self.correct & kept).sum()), int(kept.sum())
        loss = probabilities.losses(raw, self.truth)
        calibration = {
            "fitted": self.calibration.to_json(),
            "log_loss_before": number(float(loss.mean()) if len(loss) else math.nan),
            "calibration_error_before": number(
                probabilities.calibration_error(raw.max(axis=1, initial=0), self.correct)
            ),
            "calibrated_band": interval(intervals.calibrated_band(self.probabilities.max(axis=1, initial=0))),
            "answered": answered,
            "precision": number(right / answered if answered else math.nan),
            "precision_interval": interval(intervals.share(right, answered)),
        }
        return {"calibration": calibration}

    def _slice(self, column: Sequence[str | None]) -> list[dict[str, Any]]:
        """Accuracy for each value of a column, in natural order; rows without a value last."""
        total = Counter(column[row] for row in self.counted)
        right = Counter(column[row] for row, hit in zip(self.counted, self.correct, strict=True) if hit)
        rejected = Counter(
            value for value, row in zip(column, self.predictions, strict=True) if row.problem is not None
        )
        ordered = sorted({*total, *rejected}, key=lambda value: (value is None, natural_key(value or "")))
        return [
            {
                "value": value,
                "pictures": total[value],
                "rejected": rejected[value],
                "accuracy": right[value] / total[value] if total[value] else None,
                "interval": interval(intervals.share(right[value], total[value])),
            }
            for value in ordered
        ]

    def _indices(self, labels: Sequence[str | None]) -> NDArray[np.int64]:
        index = {name: place for place, name in enumerate(self.classes)}
        return np.array([index[str(label)] for label in labels], dtype=np.int64)


def _confusion_image(classes: Sequence[str], matrix: ConfusionMatrix) -> bytes:
    """Draw a confusion matrix as PNG."""
    buffer = io.BytesIO()
    with plots.any_script():  # the tables have the names
        plots.confusion_matrix(classes, matrix).savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
