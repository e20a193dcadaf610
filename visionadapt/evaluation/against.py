"""Compare two classifiers that were evaluated on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from visionadapt.errors import UsageError
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.metrics import paired
from visionadapt.system.csv_text import table_text
from visionadapt.system.storage import write_json, write_text
from visionadapt.tasks import plain_task

FILES = ("comparison.json", "differences.csv")
_HEADER = ("file", "true class", "label", "probability", "other label", "other probability")


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same rows, and the names of their classifiers.

    The metrics of the comparison are computed on the images that count in both.
    """

    first: Evaluation
    second: Evaluation
    names: tuple[str, str]

    @property
    def several(self) -> bool:
        """Whether images have several labels, so that only those with every label right count as right."""
        return not plain_task(self.first.task).has_accuracy

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Indices of the rows that count in both evaluations."""
        return tuple(sorted({*self.first.counted} & {*self.second.counted}))

    @cached_property
    def right(self) -> tuple[dict[int, bool], dict[int, bool]]:
        """For each classifier, by the index of each counted row, whether all its labels are right."""
        one, two = (
            {row: {*found.predictions[row].labels} == {*found.true_classes[row]} for row in self.rows}
            for found in (self.first, self.second)
        )
        return one, two

    @cached_property
    def only_first(self) -> tuple[int, ...]:
        """Rows that only the first classifier classifies correctly."""
        return tuple(row for row in self.rows if self.right[0][row] and not self.right[1][row])

    @cached_property
    def only_second(self) -> tuple[int, ...]:
        """Rows that only the second classifier classifies correctly."""
        return tuple(row for row in self.rows if self.right[1][row] and not self.right[0][row])

    @property
    def accuracies(self) -> tuple[float, float]:
        """Share of the images that each classifies correctly, with every label right."""
        one, two = (sum(right.values()) / len(self.rows) for right in self.right)
        return one, two

    def figures(self) -> dict[str, Any]:
        """Return what is compared as plain data: shares in [0, 1], the interval of their difference, McNemar's p."""
        more, low, high = paired.difference(len(self.only_first), len(self.only_second), len(self.rows))
        return {
            "runs": list(self.names),
            "pictures": len(self.rows),
            "accuracy": list(self.accuracies),
            "difference": more,
            "interval": [low, high],
            "mcnemar": paired.mcnemar(len(self.only_first), len(self.only_second)),
            "only_first": len(self.only_first),
            "only_second": len(self.only_second),
        }

    def differing(self) -> Iterator[int]:
        """Yield the rows, among all usable ones, that the two classifiers label differently."""
        for row, (one, two) in enumerate(zip(self.first.predictions, self.second.predictions, strict=True)):
            if one.problem is None and two.problem is None and {*one.labels} != {*two.labels}:
                yield row


def compare(first: Evaluation, second: Evaluation, names: tuple[str, str]) -> Comparison:
    """Compare two evaluations of the same rows.

    Raises:
        UsageError: they are of other rows or of other tasks, or have no image of a class that both know.
    """
    if first.task != second.task or first.true_classes != second.true_classes:
        raise UsageError(
            f"{names[0]} and {names[1]} were not evaluated on the same task and images; evaluate both again"
        )
    found = Comparison(first, second, names)
    if not found.rows:
        raise UsageError(
            f"{names[0]} and {names[1]} share no class that an image has; compare runs on the same classes"
        )
    return found


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write `comparison.json`, and `differences.csv` with what is labelled differently; raise RunError if it fails."""
    write_json(folder / FILES[0], comparison.figures())
    lines = []
    for row in comparison.differing():
        one, two = comparison.first.predictions[row], comparison.second.predictions[row]
        truth = "|".join(comparison.first.true_classes[row])
        labels = ["|".join(each.labels) for each in (one, two)]
        lines.append((one.file, truth, labels[0], round(one.probability, 4), labels[1], round(two.probability, 4)))
    write_text(folder / FILES[1], table_text(_HEADER, lines))
