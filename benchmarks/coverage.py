"""How often the 95 % intervals hold the truth on simulated data.

    python benchmarks/coverage.py > docs/measurements/intervals.md

Each population is a classifier with given probabilities: its true figures come from a million draws or by formula.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from visionadapt.metrics import intervals
from visionadapt.metrics import probabilities as figures
from visionadapt.tasks import ConfusionMatrix

SIZES = (50, 200, 1_000, 5_000)
Counts = NDArray[np.int64]


def matrices(classes: int, low: float, high: float, even: bool, random: np.random.Generator) -> NDArray[np.float64]:
    """A population's joint probabilities [C, C]: recalls from uniform(low, high), errors anywhere."""
    weights = np.ones(classes) if even else 1 / np.arange(1, classes + 1)
    rows = np.zeros((classes, classes))
    for row in range(classes):
        recall = random.uniform(low, high)
        rows[row] = np.insert(random.dirichlet(np.full(classes - 1, 0.5)) * (1 - recall), row, recall)
    return np.asarray(rows * (weights / weights.sum())[:, None])


def matrix_figures(joint: NDArray[np.float64]) -> dict[str, float]:
    """The true figures of a population."""
    hits, truth, taken = np.diagonal(joint), joint.sum(1), joint.sum(0)
    return {
        "accuracy": float(hits.sum()),
        "recall of a class": float(hits[-1] / truth[-1]),
        "F1 of a class": float(2 * hits[-1] / (truth[-1] + taken[-1])),
        "balanced accuracy": float((hits / truth).mean()),
        "macro-F1": float((2 * hits / (truth + taken)).mean()),
    }


def matrix_intervals(counts: Counts) -> dict[str, tuple[float, float]]:
    """The intervals of a sample."""
    limits = intervals.per_class(ConfusionMatrix(counts))
    return {
        "accuracy": intervals.share(int(np.trace(counts)), int(counts.sum())),
        "recall of a class": tuple(float(limit[-1]) for limit in limits["recall"]),
        "F1 of a class": tuple(float(limit[-1]) for limit in limits["f1"]),
        "balanced accuracy": intervals.balanced_accuracy(counts),
        "macro-F1": intervals.macro_f1(counts),
    }


def matrix_coverage(
    classes: int, low: float, high: float, even: bool, n: int, repeats: int, random: np.random.Generator
) -> dict[str, float]:
    """Share of samples whose interval holds the truth; each sample is of a population of its own."""
    hits: dict[str, list[bool]] = {}
    for _ in range(repeats):
        joint = matrices(classes, low, high, even, random)
        counts = random.multinomial(n, joint.ravel()).reshape(classes, classes)
        truth = matrix_figures(joint)
        for name, (lower, upper) in matrix_intervals(counts).items():
            if lower == lower:
                hits.setdefault(name, []).append(lower <= truth[name] <= upper)
    return {name: float(np.mean(values)) for name, values in hits.items()}


Draw = Callable[[int, np.random.Generator], tuple[NDArray[np.float64], NDArray[np.int64]]]


def softmax_population(scale: float, temperature: float, classes: int) -> Draw:
    """Probabilities that are softmax(z / temperature), where the labels are drawn from softmax(z)."""

    def draw(n: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        z = random.normal(0, 1.6, (n, classes))
        z[:, 0] += 1.6 * scale
        truth = (np.cumsum(softmax(z), axis=1) < random.random(n)[:, None]).sum(1).clip(0, classes - 1)
        return softmax(z / temperature), truth.astype(np.int64)

    return draw


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits [N, C]."""
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def outcome(draw: Draw, n: int, random: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Losses, confidences and whether each prediction is right, of one sample."""
    probabilities, truth = draw(n, random)
    return figures.losses(probabilities, truth), probabilities.max(1), probabilities.argmax(1) == truth


def probability_coverage(draw: Draw, n: int, repeats: int, random: np.random.Generator) -> dict[str, float]:
    """The same for log-loss and calibration error, against a sample of four million."""
    parts = [outcome(draw, 1_000_000, random) for _ in range(4)]
    losses, confidence, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    truth = {"log-loss": losses.mean(), "calibration error": figures.calibration_error(confidence, correct)}
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for repeat in range(repeats):
        losses, confidence, correct = outcome(draw, n, random)
        found = {
            "log-loss": intervals.log_loss(losses, seed=repeat),
            "calibration error": intervals.calibration_error(confidence, correct, seed=repeat),
        }
        for name, (lower, upper) in found.items():
            slack = 0.002 if name == "calibration error" and truth[name] < 0.002 else 0.0
            hits[name].append(lower - slack <= truth[name] <= upper)
    return {name: float(np.mean(values)) for name, values in hits.items()}


MATRIX_POPULATIONS = {
    f"{classes} {kind}, recalls {low}–{high}": (classes, low, high, even)
    for classes in (2, 5, 10)
    for low, high in ((0.6, 0.8), (0.85, 0.99))
    for even, kind in ((True, "even classes"), (False, "classes as 1 : 1/2 : 1/3 …"))
}
PROBABILITY_POPULATIONS = {
    "calibrated, accuracy 0.67": softmax_population(1.5, 1.0, 5),
    "calibrated, accuracy 0.89": softmax_population(3.2, 1.0, 5),
    "overconfident (T = 0.5), accuracy 0.89": softmax_population(3.2, 0.5, 5),
    "underconfident (T = 2), accuracy 0.80": softmax_population(2.5, 2.0, 5),
}


def table(name: str, lines: Iterator[tuple[str, int, dict[str, float]]]) -> str:
    """A Markdown table of coverages."""
    found = list(lines)
    figures_ = list(found[0][2])
    head = f"| {name} | n | {' | '.join(figures_)} |\n|---|---|{'---|' * len(figures_)}\n"
    return head + "".join(
        f"| {what} | {n:,} | {' | '.join(f'{values[figure]:.3f}' for figure in figures_)} |\n"
        for what, n, values in found
    )


def main(repeats: int = 1_000) -> None:
    """Write the page."""
    random = np.random.default_rng(0)
    print(PAGE.format(repeats=repeats))
    print(
        table(
            "population",
            (
                (what, n, matrix_coverage(*population, n, repeats, random))
                for what, population in MATRIX_POPULATIONS.items()
                for n in SIZES
            ),
        )
    )
    print(
        table(
            "population",
            (
                (what, n, probability_coverage(draw, n, repeats // 4, np.random.default_rng([place, n])))
                for place, (what, draw) in enumerate(PROBABILITY_POPULATIONS.items())
                for n in SIZES
            ),
        ),
        end="",
    )


PAGE = """# Coverage of the intervals

Every metric of `evaluate` has a 95 % interval: computed from other images of the same kind, 95 of 100 such intervals
contain the value for infinitely many images. These tables show the share that does, of {repeats:,} simulated samples
per row, each from a population of its own, and in the second table of a quarter as many. In 95 of 100 cases, chance
alone changes a row by up to 0.014, and 0.027 in the second table. This page is written
by `python benchmarks/coverage.py`.

| metric | interval |
|---|---|
| accuracy, top-k, recall, precision, slices | Wilson |
| F1 of a class | Wilson for J = TP/(TP + FP + FN), taken through F1 = 2J/(1 + J) |
| balanced accuracy, macro-F1 | delta method on the logit scale, with small corrections described in the docstrings |
| log-loss | studentised bootstrap |
| calibration error (ECE, 15 equal-width bins of the top probability) | inversion of a simulated test |

Percentile bootstrap intervals are too narrow. On 50 images their coverage is 0.87 for a balanced accuracy of 0.92 and
0.85 for the log-loss of an overconfident classifier. Since sampling noise alone creates gaps in the bins, they never
contain the calibration error of a calibrated classifier. The interval used here is therefore for the error that the
same bins would show on infinitely many images, and may be below the measured value; if all of the error is in one or
two bins, its coverage is lower, 0.77 to 0.9. Whether a classifier may be perfectly calibrated is a separate question,
answered by `calibrated_band` in `evaluation.json`: the range of 95 % of the errors that such a classifier would show on
these images. If the true value is 0, an interval that starts at 0 contains it, as about 97.5 % do.

If some classes have two images or none (10 uneven classes, n = 50), macro-F1 is a mean over the others and its
interval has too low a coverage, 0.80 to 0.87.
"""

if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
