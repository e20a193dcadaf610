"""Rows with several labels: every label gets its share on each side, the same on every machine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import visionadapt as va
from visionadapt.core.records import Manifest, Record
from visionadapt.data.split_report import SplitReport
from visionadapt.data.splits import folds, split, task_of
from visionadapt.data.stratification import stratified_sides
from visionadapt.errors import SplitError

from .test_splits import ListSource, keys

CLASSES = ("ant", "bee", "fly")


def source_with(rows: Sequence[Sequence[str]], classes: tuple[str, ...] = CLASSES) -> ListSource:
    return ListSource(tuple(Record(f"{n}.jpg", tuple(labels)) for n, labels in enumerate(rows)), classes)


def counts(manifest: Manifest) -> Counter[str]:
    return Counter(label for record in manifest for label in record.labels)


def test_sides_by_hand() -> None:
    """Label 1 has the fewest rows (2, 3). Each side wants one of it and two rows: row 2 goes where its hash says, row 3
    to the other side. Then label 0: the side of row 2 still wants half a row of it, the other one and a half, so that
    one gets row 0; then they want equally much, and the side of row 2 wants more rows."""
    labels = [(0,), (0,), (0, 1), (1,)]
    sides = stratified_sides(labels, (0.5, 0.5), [0, 1, 2, 3])
    assert sides[3] != sides[2]
    assert sides[0] == sides[3]
    assert sides[1] == sides[2]
    assert stratified_sides([(), (), ()], (0.7, 0.3), [5, 6, 7]).count(1) == 1


ROWS = st.lists(st.sets(st.sampled_from(CLASSES)).map(sorted), min_size=1, max_size=40)
PAIR = [["ant"], ["bee"], ["fly"], ["ant", "bee"], ["bee", "fly"], ["ant", "fly"]]


@pytest.mark.slow
@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 5), st.randoms())
def test_no_row_is_lost_and_no_order_matters(rows: list[list[str]], val: float, seed: int, draw: random.Random) -> None:
    source = source_with([*rows, *PAIR])
    train, chosen = split(source, val, seed)
    assert sorted(keys(train) + keys(chosen)) == sorted(record.key for record in source)
    assert all(counts(part)[name] for part in (train, chosen) for name in CLASSES)
    shuffled = ListSource(tuple(draw.sample(source.rows, len(source.rows))), source.classes)
    assert set(keys(split(shuffled, val, seed)[1])) == set(keys(chosen))


@pytest.mark.slow
@given(st.lists(st.integers(2, 30), min_size=3, max_size=3), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 9))
def test_rows_of_one_label_are_divided_as_classes_are(sizes: list[int], val: float, seed: int) -> None:
    rows = [[name] for name, size in zip(CLASSES, sizes, strict=True) for _ in range(size)]
    chosen = counts(split(source_with(rows), val, seed, task="multilabel")[1])
    for name, size in zip(CLASSES, sizes, strict=True):
        assert abs(chosen[name] - max(1, val * size)) < 1


def test_labels_are_better_balanced_than_by_chance() -> None:
    ours, theirs = [], []
    for seed in range(5):
        draw = np.random.default_rng(seed)
        has = draw.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.03, 0.02]
        names = tuple("abcdef")
        source = source_with([[names[c] for c in np.flatnonzero(row)] for row in has], names)
        for _, chosen in folds(source, 5, seed):
            ours.append([abs(counts(chosen)[name] / max(has[:, c].sum(), 1) - 0.2) for c, name in enumerate(names)])
        shuffled = draw.permutation(400).reshape(5, 80)
        theirs += [np.abs(has[rows].sum(0) / has.sum(0).clip(1) - 0.2) for rows in shuffled]
        sizes = [len(chosen) for _, chosen in folds(source, 5, seed)]
        assert max(sizes) - min(sizes) <= 6
    assert np.mean(ours) < np.mean(theirs) / 3


def test_folds_hold_each_row_once() -> None:
    source = source_with([*PAIR * 3, [], []])
    parts = [keys(chosen) for _, chosen in va.folds(source, k=3)]
    assert sorted(key for part in parts for key in part) == sorted(record.key for record in source)
    assert parts == [keys(chosen) for _, chosen in va.folds(source, k=3)]


@pytest.mark.parametrize("val", [0.2, 0.9])
def test_a_label_of_one_row_is_trained_on_and_told(val: float) -> None:
    train, chosen = split(source_with([*PAIR * 3, ["ant", "moth"]], (*CLASSES, "moth")), val)
    assert counts(train)["moth"] == 1
    report = SplitReport.of(train, chosen, val)
    assert report.absent == ("moth",)
    assert f"where {100 * val:.1f} % was asked for; no image to validate moth with" in str(report)


def test_rows_that_cannot_be_used_have_no_weight() -> None:
    rows = [
        Record(f"{n}", ("ant", "bee") if n % 2 else ("bee",), problem="no such file" if n < 40 else None)
        for n in range(60)
    ]
    report = SplitReport.of(*split(ListSource(tuple(rows), CLASSES[:2]), 0.2), 0.2)
    assert (report.train, report.val, report.shares) == (16, 4, {"ant": 0.2, "bee": 0.2})


def test_groups_stay_whole() -> None:
    rows = tuple(Record(f"{n}", tuple(PAIR[n % 6]), group=f"g{n // 3}") for n in range(60))
    train, chosen = split(ListSource(rows, CLASSES), 0.3)
    assert not {record.group for record in train} & {record.group for record in chosen}
    shares = SplitReport.of(train, chosen, 0.3).shares
    assert all(abs(share - 0.3) < 0.06 for share in shares.values())


def test_the_task_is_the_data_s_or_the_one_asked_for() -> None:
    one, several = source_with([["ant"], [], ["bee"]]), source_with([["ant"], ["ant", "fly"]])
    parts = [Manifest(source, source) for source in (one, several)]
    assert task_of("auto", parts[0]) == "single"
    assert task_of("auto", *parts) == task_of("multilabel", parts[0]) == "multilabel"
    assert task_of("single", parts[0]) == "single"
    with pytest.raises(SplitError, match=r"1\.jpg has 2 labels \(ant, fly\), and an image can have one here"):
        task_of("single", *parts)
