"""Measure a trained classifier on labelled pictures."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Manifest
from visionadapt.core.spec import suggestion
from visionadapt.errors import RunError, UsageError
from visionadapt.evaluation.multilabel import MultiLabelEvaluation, per_class_table
from visionadapt.metrics import intervals, probabilities
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.predictor import Prediction, Predictor
from visionadapt.prediction.tables import writing
from visionadapt.system.csv_text import table_text
from visionadapt.system.storage import write_bytes, write_json, write_text
from visionadapt.tasks import ConfusionMatrix


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        classes: of the classifier, in the order of the matrix.
        matrix: over the pictures that could be used and whose class the classifier knows.
        predictions: of every row, in order.
        labels: the true class of every row; None where it has none.
        unknown: how many pictures there are of each class that the classifier does not know; they are in no figure.
        calibration: what made the probabilities of the logits.
        slices: by column, the value of every row; None where it has none.
        trained_on: how many pictures the classifier was trained on: they flatter every figure.
    """

    classes: tuple[str, ...]
    matrix: ConfusionMatrix
    predictions: tuple[Prediction, ...]
    labels: tuple[str | None, ...]
    unknown: dict[str, int]
    calibration: Calibration = field(default_factory=Calibration)
    slices: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    trained_on: int = 0

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        predictions: Sequence[Prediction],
        labels: Sequence[str | None],
        *,
        calibration: Calibration | None = None,
        slices: Mapping[str, Sequence[str | None]] | None = None,
        trained_on: int = 0,
    ) -> Evaluation:
        """Count predictions and their true classes, a label a prediction."""
        index = {name: place for place, name in enumerate(classes)}
        pairs = [
            (index[label], index[row.label])
            for row, label in zip(predictions, labels, strict=True)
            if label in index and row.label is not None
        ]
        strange = Counter(label for label in labels if label is not None and label not in index)
        return cls(
            tuple(classes),
            ConfusionMatrix.of((pair[0] for pair in pairs), (pair[1] for pair in pairs), len(index)),
            tuple(predictions),
            tuple(labels),
            dict(sorted(strange.items(), key=lambda item: natural_key(item[0]))),
            calibration or Calibration(),
            {name: tuple(values) for name, values in (slices or {}).items()},
            trained_on,
        )

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Key and reason of each row that could not be used."""
        return [(row.file, row.problem) for row in self.predictions if row.problem is not None]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the classifier that have no usable picture here."""
        return tuple(name for name, count in zip(self.classes, self.matrix.support, strict=True) if count == 0)

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """Which rows are in the figures: they could be used, and the classifier knows their class."""
        known = set(self.classes)
        rows = enumerate(zip(self.predictions, self.labels, strict=True))
        return tuple(row for row, (prediction, label) in rows if prediction.label is not None and label in known)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of the counted rows: float64 [N, C]."""
        rows = [self.predictions[row].probabilities for row in self.counted]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes))

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Class indices of the counted rows: int64 [N]."""
        index = {name: place for place, name in enumerate(self.classes)}
        return np.array([index[str(self.labels[row])] for row in self.counted], dtype=np.int64)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which of the counted rows are right: bool [N]."""
        return np.array([self.predictions[row].label == self.labels[row] for row in self.counted], dtype=np.bool_)

    def figures(self) -> dict[str, Any]:
        """Every figure as plain data, with its 95 % interval under `intervals`; what has no denominator is None.

        Proportions have Wilson's interval, the others those of `visionadapt.metrics.intervals`.
        """
        values, limits = self._overall()
        return {
            **{name: _number(value) for name, value in values.items()},
            "intervals": {name: _interval(pair) for name, pair in limits.items()},
            "pictures": len(self.counted),
            "rows": len(self.predictions),
            "rejected": len(self.rejected),
            "unlabelled": sum(label is None for label in self.labels),
            "trained_on": self.trained_on,
            "absent_classes": list(self.absent),
            "unknown_classes": self.unknown,
            "calibration": self._calibration(),
            "per_class": self._per_class(),
            "slices": {name: self._slice(column) for name, column in self.slices.items()},
        }

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

    def _per_class(self) -> dict[str, dict[str, Any]]:
        matrix = self.matrix
        values = {"recall": matrix.recall, "precision": matrix.precision, "f1": matrix.f1}
        limits = {name: intervals.PER_CLASS[name](matrix.counts) for name in values}
        return {
            name: {
                "support": int(matrix.support[row]),
                **{figure: _number(float(column[row])) for figure, column in values.items()},
                "intervals": {figure: _interval((low[row], high[row])) for figure, (low, high) in limits.items()},
            }
            for row, name in enumerate(self.classes)
        }

    def _calibration(self) -> dict[str, Any]:
        """What the calibration did to the figures, and how right the predictions are that do not abstain."""
        temperature = self.calibration.temperature
        raw = probabilities.tempered(self.probabilities, temperature)
        kept = np.array([not self.predictions[row].abstain for row in self.counted], dtype=np.bool_)
        right, answered = int((self.correct & kept).sum()), int(kept.sum())
        loss = probabilities.losses(raw, self.truth)
        return {
            **self.calibration.to_json(),
            "log_loss_before": _number(float(loss.mean()) if len(loss) else math.nan),
            "calibration_error_before": _number(
                probabilities.calibration_error(raw.max(axis=1, initial=0), self.correct)
            ),
            "calibrated_band": _interval(intervals.calibrated_band(self.probabilities.max(axis=1, initial=0))),
            "answered": answered,
            "precision": _number(right / answered if answered else math.nan),
            "precision_interval": _interval(intervals.share(right, answered)),
        }

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
                "interval": _interval(intervals.share(right[value], total[value])),
            }
            for value in ordered
        ]


def evaluate(
    predictor: Predictor,
    manifest: Manifest,
    workers: int = 0,
    trained: Container[str] = (),
    slice_by: Sequence[str] = (),
) -> Evaluation | MultiLabelEvaluation:
    """Predict every row of a labelled manifest and count.

    Where the classifier takes any number of classes a picture, so does the evaluation; a row without labels has none.

    Args:
        predictor: the classifier.
        manifest: the rows; its classes may be more than the classifier's.
        workers: processes that read pictures.
        trained: the SHA-256 of the training files.
        slice_by: columns to tell the accuracy by: `label`, `group`, `split`, or a further one of the rows'.

    Raises:
        UsageError: no row has such a column, or one is asked for where pictures have several classes.
    """
    thresholds = predictor.calibration.thresholds
    if thresholds is not None and slice_by:
        raise UsageError("--slice-by tells the accuracy, which pictures of several classes do not have; leave it out")
    columns = slice_columns(manifest, slice_by)
    predictions: list[Prediction] = []
    found: list[tuple[str, ...]] = []
    trained_on = 0
    for prediction, finding in predictor.stream(manifest, workers):
        predictions.append(prediction)
        found.append(manifest[finding.index].labels)
        trained_on += finding.sha256 in trained
    if thresholds is not None:
        return MultiLabelEvaluation(predictor.classes, tuple(predictions), tuple(found), thresholds, trained_on)
    labels = [own[0] if own else None for own in found]
    return Evaluation.of(
        predictor.classes,
        predictions,
        labels,
        calibration=predictor.calibration,
        slices=columns,
        trained_on=trained_on,
    )


def slice_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """The value of every row in each of some columns; raise UsageError where no row has one."""
    own = {"label", "group", "split"}
    values: dict[str, list[str | None]] = {name: [] for name in names}
    known: set[str] = set()
    for record in manifest if names else ():
        known |= {*record.columns, *(name for name in own if getattr(record, name) is not None)}
        for name, column in values.items():
            column.append(getattr(record, name) if name in own else record.columns.get(name))
    for name in names:
        if name not in known:
            raise UsageError(
                f"--slice-by {name!r}: no row has such a column{suggestion(name, known)} "
                f"(columns: {', '.join(sorted(known, key=natural_key)) or 'none'})"
            )
    return {name: tuple(column) for name, column in values.items()}


def write_evaluation(folder: Path, evaluation: Evaluation | MultiLabelEvaluation) -> None:
    """Write `evaluation.json`, the tables as CSV, and a confusion matrix, where there is one, as a picture too.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
    write_figures(folder, evaluation)
    if isinstance(evaluation, Evaluation):
        write_bytes(folder / "confusion_matrix.png", _picture(evaluation.classes, evaluation.matrix))
    several = isinstance(evaluation, MultiLabelEvaluation)
    with writing(folder / "predictions.csv", evaluation.classes, true_classes=True, several=several) as write:
        write(evaluation.predictions, evaluation.labels)
    write_text(folder / "rejected.csv", table_text(("file", "reason"), evaluation.rejected))


def write_figures(folder: Path, evaluation: Evaluation | MultiLabelEvaluation) -> None:
    """Write `evaluation.json`, and `per_class.csv`, `slices.csv` and `confusion_matrix.csv` beside it.

    The last two are only there where a picture has exactly one class.

    Raises:
        RunError: a file cannot be written.
    """
    found, classes = evaluation.figures(), evaluation.classes
    write_json(folder / "evaluation.json", found)
    if isinstance(evaluation, MultiLabelEvaluation):
        write_text(folder / "per_class.csv", table_text(*per_class_table(found)))
        return
    names = ("recall", "precision", "f1")
    header = ("class", "support", *(column for name in names for column in _limits_of(name)))
    rows = [
        (name, values["support"], *(cell for column in names for cell in _cells(values, column)))
        for name, values in found["per_class"].items()
    ]
    write_text(folder / "per_class.csv", table_text(header, rows))
    counts = evaluation.matrix.counts.tolist()
    matrix = [(name, *row) for name, row in zip(classes, counts, strict=True)]
    write_text(folder / "confusion_matrix.csv", table_text(("true class", *classes), matrix))
    if evaluation.slices:
        header = ("column", "value", "pictures", "rejected", *_limits_of("accuracy"))
        write_text(folder / "slices.csv", table_text(header, list(_slice_rows(found["slices"]))))
    else:
        (folder / "slices.csv").unlink(missing_ok=True)


def _slice_rows(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str | float, ...]]:
    for name, values in slices.items():
        for row in values:
            limits = (_cell(limit) for limit in row["interval"] or (None, None))
            yield (name, row["value"] or "", row["pictures"], row["rejected"], _cell(row["accuracy"]), *limits)


def _limits_of(name: str) -> tuple[str, str, str]:
    return name, f"{name} low", f"{name} high"


def _cells(values: Mapping[str, Any], name: str) -> tuple[str | float, ...]:
    limits = values["intervals"][name] or (None, None)
    return tuple(_cell(value) for value in (values[name], *limits))


def _picture(classes: Sequence[str], matrix: ConfusionMatrix) -> bytes:
    """The confusion matrix as a PNG; each row is coloured by its share."""
    from matplotlib.figure import Figure

    side = min(max(4.0, 0.5 * len(classes) + 2), 40.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix.counts / matrix.support.clip(1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_shortened(name).replace("$", r"\$") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= 40:
        for row, line in enumerate(matrix.counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count) if count else "", ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; the tables have the name
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _shortened(name: str) -> str:
    """A name of at most 40 characters, so that the matrix keeps its place in the picture."""
    return name if len(name) <= 40 else f"{name[:39]}…"


def _number(value: float) -> float | None:
    return None if value != value else value


def _interval(limits: intervals.Interval) -> list[float] | None:
    return None if limits[0] != limits[0] else [float(limits[0]), float(limits[1])]


def _cell(value: float | int | None) -> float | int | str:
    return "" if value is None else value
