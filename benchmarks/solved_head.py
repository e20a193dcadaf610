"""Compare the solver of the head with scikit-learn's: `python -m benchmarks.solved_head [--rows 100000]`.

Each solver runs in a process of its own, on the same drawn features (float32, correlated, of different scales), at the
same penalty.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np
import torch

PENALTY = 1e-5
TOLERANCES = {"visionadapt": 3e-4, "visionadapt, tolerance 0.002": 2e-3}
"""The default tolerance, and one that is enough for the loss at which scikit-learn stops by default."""
SOLVERS = (*TOLERANCES, "scikit-learn")


def draw(rows: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] with a decaying spectrum, standardised, and labels int64 [N]."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    spectrum = (np.arange(size) + 1.0) ** -0.5
    centres = generator.normal(size=(classes, size)) * spectrum
    features = np.empty((rows, size), np.float32)
    mixing = np.linalg.qr(generator.normal(size=(size, size)))[0].astype(np.float32)
    for start in range(0, rows, 1_000):
        part = slice(start, min(start + 1_000, rows))
        drawn = centres[labels[part]] + 1.5 * generator.normal(size=(part.stop - start, size)) * spectrum
        features[part] = drawn.astype(np.float32) @ mixing
    features -= features.mean(axis=0)
    features /= features.std(axis=0) * size**0.5
    return features, labels


def visionadapt(
    features: np.ndarray, labels: np.ndarray, classes: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, C] and bias [C] by this library's `LogisticRegression`."""
    from visionadapt.training.logistic_regression import LogisticRegression

    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    problem = LogisticRegression(torch.from_numpy(features), targets)
    found = problem.solve(torch.full((len(labels), 1), 1 / len(labels)), PENALTY, tolerance=tolerance)
    return problem.weight(found)[:, 0].numpy(), found.bias[0].numpy()


def scikit_learn(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, C] and bias [C] by scikit-learn's, run until it has converged by its own default tolerance."""
    from sklearn.linear_model import LogisticRegression

    theirs = LogisticRegression(C=1 / (2 * PENALTY * len(labels)), max_iter=10_000).fit(features, labels)
    return theirs.coef_.T, theirs.intercept_


def measure(solver: str, rows: int, size: int, classes: int) -> dict[str, float | str]:
    """Run one solver in this process; return its loss, seconds, and the peak memory with the features."""
    features, labels = draw(rows, size, classes)
    solve = partial(visionadapt, tolerance=TOLERANCES[solver]) if solver in TOLERANCES else scikit_learn
    solve(features[: 5 * classes], labels[: 5 * classes], classes)  # imports
    started, cpu = time.perf_counter(), time.process_time()
    weight, bias = solve(features, labels, classes)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0.0
    for start in range(0, rows, 10_000):
        logits = torch.from_numpy(features[start : start + 10_000]).double() @ torch.from_numpy(weight).double()
        own = torch.from_numpy(labels[start : start + 10_000])
        total += torch.nn.functional.cross_entropy(
            logits + torch.from_numpy(bias).double(), own, reduction="sum"
        ).item()
    loss = total / rows + PENALTY * float(np.square(weight.astype(np.float64)).sum())
    return {"solver": solver, "loss": loss, "seconds": seconds, "cpu": cpu, "megabytes": memory / 1024}


def main() -> None:
    """Print a row per solver."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--solver", choices=SOLVERS)
    given = parser.parse_args()
    sizes = (given.rows, given.features, given.classes)
    if given.solver:
        print(json.dumps(measure(given.solver, *sizes)))
        return
    print("| solver | loss + penalty | seconds | CPU seconds | peak memory, MB |\n|---|---|---|---|---|")
    for solver in SOLVERS:
        options = [f"--{name}={value}" for name, value in zip(("rows", "features", "classes"), sizes, strict=True)]
        command = [sys.executable, "-m", "benchmarks.solved_head", f"--solver={solver}", *options]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(line.splitlines()[-1])
        print(
            f"| {solver} | {row['loss']:.6f} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['megabytes']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
