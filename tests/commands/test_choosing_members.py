"""Which candidates are averaged: those whose mean is better than each of them, judged without the luck of the best."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.metrics import f1_score

from visionadapt.commands.candidates import Candidate, Result, right_of
from visionadapt.commands.ensembling import choose_from

CLASSES = ("ant", "bee", "cat", "dog")
LORA = "lora(blocks=last:1)"


def made(folder: Path, name: str, probabilities: np.ndarray, labels: np.ndarray, adapter: str, epoch: int) -> Result:
    """A candidate that gave validation images these probabilities."""
    run = folder / name
    (run / "validation").mkdir(parents=True)
    columns = {
        "true_class": [CLASSES[label] for label in labels],
        "label": [CLASSES[label] for label in probabilities.argmax(axis=1)],
        "probabilities": probabilities.tolist(),
    }
    parquet.write_table(pa.table(columns), run / "validation" / "predictions.parquet")
    (run / "classes.json").write_text(json.dumps(CLASSES))
    (run / "summary.json").write_text(json.dumps({"best_epoch": epoch}))
    right = right_of(run)
    return Result(Candidate(name, adapter), run, float(right.mean()), right, 1.0)


def candidates(folder: Path, noises: list[float], adapters: list[str], epochs: list[int]) -> list[Result]:
    """Candidates that see the truth of 200 images through noise of their own."""
    random = np.random.default_rng(0)
    labels = random.integers(len(CLASSES), size=200)
    results = []
    for number, (noise, adapter, epoch) in enumerate(zip(noises, adapters, epochs, strict=True)):
        logits = 3 * np.eye(len(CLASSES))[labels] + random.normal(0, noise, (200, len(CLASSES)))
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        results.append(made(folder, f"candidate {number}", probabilities, labels, adapter, epoch))
    return results


def test_draws_that_are_equally_good_are_averaged_though_one_of_them_was_lucky(tmp_path: Path) -> None:
    head, *draws = candidates(tmp_path, [4.0, 1.8, 1.8, 1.8], ["none", *[LORA] * 3], [1, 20, 20, 20])
    lucky = draws[0].right.copy()
    lucky[np.flatnonzero(~lucky)[:10]] = True  # five points more than its probabilities deserve, or a mean of all
    draws[0] = Result(draws[0].candidate, draws[0].run, float(lucky.mean()), lucky, 1.0)
    members = choose_from([head, *draws])
    assert {member.run for member in members} == {draw.run for draw in draws}


@pytest.mark.parametrize(
    ("noises", "adapters", "epochs"),
    [
        ([1.8, 1.8], ["none", LORA], [1, 20]),  # one alone
        ([4.0, 0.5, 6.0], ["none", LORA, LORA], [1, 20, 20]),  # the other one is bad
        ([0.1, 3.0, 3.0], ["none", LORA, LORA], [1, 20, 20]),  # worse than the solved head
        ([1.8, 1.8, 1.8], ["none", LORA, LORA], [1, 20, 0]),  # ended with the solved head
    ],
)
def test_what_is_not_averaged(tmp_path: Path, noises: list[float], adapters: list[str], epochs: list[int]) -> None:
    assert choose_from(candidates(tmp_path, noises, adapters, epochs)) == []


def test_no_mean_is_taken_that_is_less_accurate_beyond_chance(tmp_path: Path) -> None:
    head, *draws = candidates(tmp_path, [4.0, 1.8, 1.8], ["none", LORA, LORA], [1, 20, 20])
    perfect = Result(draws[0].candidate, draws[0].run, 1.0, np.ones(200, np.bool_), 1.0)
    assert choose_from([head, perfect, draws[1]]) == []


def test_time_for_one_is_none_for_a_mean(tmp_path: Path) -> None:
    tried = candidates(tmp_path, [4.0, 1.8, 1.8], ["none", LORA, LORA], [1, 20, 20])
    assert len(choose_from(tried)) == 2
    assert choose_from(tried, most=1) == []


@pytest.mark.parametrize("first", ["none", LORA])
def test_by_macro_f1_no_mean_is_taken_that_forgets_rare_classes(tmp_path: Path, first: str) -> None:
    """The members are surer of the common class, and more accurate; the best candidate knows the rare ones."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), (170, 10, 10, 10))
    truth = np.eye(4)[labels]
    leaning = 4.0 * np.eye(4)[np.zeros(200, np.int64)]
    logits = [
        20 * (4 * truth + 3 * random.normal(0, 1, (200, 4))),  # sure of what is wrong, too
        *(leaning + truth + random.normal(0, 1, (200, 4)) for _ in range(2)),
    ]
    chances = [np.exp(own) / np.exp(own).sum(axis=1, keepdims=True) for own in logits]
    names = (first, LORA, LORA)
    tried = [made(tmp_path, f"{place}", chances[place], labels, names[place], 20) for place in range(3)]
    scored = []
    for result, own in zip(tried, chances, strict=True):
        scored.append(dataclasses.replace(result, score=f1_score(labels, own.argmax(axis=1), average="macro")))
    assert scored[0].score == max(result.score for result in scored)
    scored[0].right[:] = tried[1].right  # no accuracy says against them
    assert choose_from(scored, metric="macro_f1") == []
