"""Dividing by group, and into folds: nothing is divided that belongs together, and classes keep their shares."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

import visionadapt as va
from visionadapt.core.records import Manifest, Record
from visionadapt.data.split_report import SplitReport
from visionadapt.data.splits import check_single_labels, folds, split
from visionadapt.errors import SplitError

from .test_splits import ListSource, keys, labels, source_of

CLASSES = ("ant", "bee", "fly")


def source_with(rows: Iterable[tuple[str | None, str | None]], classes: tuple[str, ...] = CLASSES) -> ListSource:
    """Rows of (label, group)."""
    made = (Record(f"{row}.jpg", () if label is None else (label,), group) for row, (label, group) in enumerate(rows))
    return ListSource(tuple(made), classes)


def groups_of(manifest: Manifest) -> set[str]:
    return {record.group for record in manifest if record.group is not None}


def holders(manifest: Iterable[Record]) -> dict[str, set[str]]:
    """The groups of each class; a row without one is a group of its own."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in manifest:
        for label in record.labels:
            found[label].add(record.group or record.key)
    return found


ROWS = st.lists(
    st.tuples(st.sampled_from((*CLASSES, None)), st.none() | st.sampled_from("abcdefgh")), min_size=1, max_size=40
)


@pytest.mark.slow
@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 5), st.randoms())
def test_no_group_is_divided_and_no_row_lost(
    rows: list[tuple[str | None, str | None]], val: float, seed: int, draw: random.Random
) -> None:
    source = source_with([*rows, *((name, f"{name}{n}") for name in CLASSES for n in range(2))])
    train, chosen = split(source, val, seed)
    assert not groups_of(train) & groups_of(chosen)
    assert sorted(keys(train) + keys(chosen)) == sorted(record.key for record in source)
    order = [record.key for record in source]
    assert keys(train) == [key for key in order if key in set(keys(train))]
    assert all(labels(part)[name] for part in (train, chosen) for name in CLASSES)
    shuffled = ListSource(tuple(draw.sample(source.rows, len(source.rows))), source.classes)
    assert set(keys(split(shuffled, val, seed)[1])) == set(keys(chosen))
    report = SplitReport.of(train, chosen, val)
    assert report.divided == () and report.absent == ()
    assert (report.train, report.val) == (len(train), len(chosen))


@pytest.mark.slow
@given(ROWS, st.integers(2, 5), st.integers(0, 5), st.booleans(), st.randoms())
def test_folds_hold_each_row_once(
    rows: list[tuple[str | None, str | None]], k: int, seed: int, grouped: bool, draw: random.Random
) -> None:
    pairs = [(label, group if grouped else None) for label, group in rows]
    pairs += [(name, f"{name}{n}" if grouped else None) for name in CLASSES for n in range(2)]
    source = source_with(pairs)
    parts = list(folds(source, k, seed))
    assert len(parts) == k
    assert sorted(key for _, val in parts for key in keys(val)) == sorted(record.key for record in source)
    for train, val in parts:
        assert sorted(keys(train) + keys(val)) == sorted(record.key for record in source)
        assert not groups_of(train) & groups_of(val)
        assert all(labels(train)[name] for name in CLASSES)
    shuffled = ListSource(tuple(draw.sample(source.rows, len(source.rows))), source.classes)
    assert [set(keys(val)) for _, val in folds(shuffled, k, seed)] == [set(keys(val)) for _, val in parts]
    if not grouped:
        for name in (*CLASSES, None):
            counts = [labels(val)[name] for _, val in parts]
            assert max(counts) - min(counts) <= 1
        sizes = [len(val) for _, val in parts]
        assert max(sizes) - min(sizes) <= 1


PURE = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 9)), max_size=20)


@given(PURE, st.sampled_from([0.1, 0.2, 0.5, 0.8]), st.integers(0, 3))
def test_shares_are_off_by_no_more_than_a_group(sizes: list[tuple[str, int]], val: float, seed: int) -> None:
    """Groups of one class each: moving one would not come nearer, but for the one that must be there."""
    sizes = [*sizes, *((name, 1) for name in CLASSES for _ in range(2))]
    source = source_with((name, str(group)) for group, (name, size) in enumerate(sizes) for _ in range(size))
    chosen = labels(split(source, val, seed)[1])
    for name in CLASSES:
        own = [size for label, size in sizes if label == name]
        assert abs(chosen[name] - val * sum(own)) <= max(own)


@pytest.mark.slow
@given(st.lists(st.integers(2, 30), min_size=3, max_size=3), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 9))
def test_groups_of_one_row_are_divided_as_rows_are(counts: list[int], val: float, seed: int) -> None:
    rows = [name for name, count in zip(CLASSES, counts, strict=True) for _ in range(count)]
    source = source_with((name, str(group)) for group, name in enumerate(rows))
    for name, count in zip(CLASSES, counts, strict=True):
        assert abs(labels(split(source, val, seed)[1])[name] - max(1, val * count)) <= 0.5
        shares = [labels(chosen)[name] for _, chosen in folds(source, 2, seed)]
        assert abs(shares[0] - shares[1]) <= 1


def imbalance(parts: Iterable[Iterable[str]], names: list[str]) -> float:
    """The largest relative difference of a class's share in a part from the same share everywhere."""
    counts, total = [Counter(part) for part in parts], Counter(names)
    return max(abs(len(counts) * count[name] / total[name] - 1) for count in counts for name in total)


def test_folds_are_no_less_balanced_than_scikit_learns() -> None:
    ours, theirs = [], []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        groups = [f"g{number}" for number in range(60) for _ in range(draw.integers(1, 9))]
        habits = {group: draw.dirichlet([0.5] * 3) for group in sorted(set(groups))}
        names = [CLASSES[draw.choice(3, p=habits[group])] for group in groups]
        source = source_with(zip(names, groups, strict=True))
        ours.append(imbalance([[str(row.label) for row in val] for _, val in folds(source, 5, seed)], names))
        other = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(names, names, groups)
        theirs.append(imbalance([[names[row] for row in rows] for _, rows in other], names))
    assert np.mean(ours) < np.mean(theirs)


def test_small_cases_come_near_the_best_that_can_be() -> None:
    """Against every way to divide eight groups: the validation shares are at most a few points off the best."""
    for seed in range(6):
        draw = random.Random(seed)
        counts = [[draw.randrange(6) for _ in CLASSES] for _ in range(8)]
        rows = [
            (name, str(g))
            for g, own in enumerate(counts)
            for name, n in zip(CLASSES, own, strict=True)
            for _ in range(n)
        ]
        total = np.sum(counts, axis=0)
        sides = np.array(list(product((0, 1), repeat=8)))
        best = np.abs(sides @ np.array(counts) / total - 0.3).max(axis=1).min()
        report = SplitReport.of(*split(source_with(rows), 0.3, seed), 0.3)
        assert max(abs(share - 0.3) for share in report.shares.values()) <= best + 0.1


def test_a_class_of_one_group_is_trained_on_and_told() -> None:
    rows = [("ant", "a"), ("ant", "b"), ("bee", "a"), ("bee", "b"), *[("fly", "c")] * 5]
    for val in (0.2, 0.9):
        train, chosen = split(source_with(rows), val)
        assert labels(train)["fly"] == 5 and labels(chosen)["fly"] == 0
        report = SplitReport.of(train, chosen, val)
        assert report.absent == ("fly",)
        assert report.shares == {"ant": 0.5, "bee": 0.5, "fly": 0}
        assert str(report).endswith(
            f"0.0 % to 50.0 % of a class, where {100 * val:.1f} % was asked for; no image to validate fly with"
        )


def test_rows_that_cannot_be_used_have_no_weight() -> None:
    rows = [
        Record(f"{n}", (CLASSES[n % 2],), f"g{n // 2}", problem="no such file" if n < 40 else None) for n in range(60)
    ]
    train, chosen = split(ListSource(tuple(rows), CLASSES[:2]), 0.2)
    report = SplitReport.of(train, chosen, 0.2)
    assert (report.train, report.val, report.shares) == (16, 4, {"ant": 0.2, "bee": 0.2})
    assert len(train) + len(chosen) == 60


def test_a_class_without_a_usable_row_is_told_before_any_picture_is_read() -> None:
    rows = [Record(f"{n}", (CLASSES[n % 2],), problem="no such file" if n % 2 else None) for n in range(20)]
    with pytest.raises(SplitError, match=r"no usable image of class 'bee' to train on: 8 × no such file \(such as 1\)"):
        split(ListSource(tuple(rows), CLASSES[:2]))


def test_the_report_by_hand() -> None:
    train, chosen = split(source_of({"a": 10, "b": 20}))
    assert str(SplitReport.of(train, chosen, 0.2)) == "24 images to train on, 6 (20.0 %) to validate with"
    grouped = source_with([(name, f"{name}{n}") for name in CLASSES for n in range(5)])
    assert str(SplitReport.of(*split(grouped), 0.2)) == (
        "12 images to train on, 3 (20.0 %) to validate with; no group of 15 on both sides; "
        "20.0 % to 20.0 % of a class, where 20.0 % was asked for"
    )
    marked = [
        Record("1", ("a",), "x"),
        Record("2", ("b",), "y"),
        Record("3", ("a",), "x", "val"),
        Record("4", (), "z", "test"),
    ]
    report = SplitReport.of(*split(ListSource(tuple(marked), ("a", "b"))), 0.2)
    assert report.divided == ("x",) and report.asked is None
    assert str(report) == (
        "2 images to train on, 1 (33.3 %) to validate with; 1 group of 2 on both sides, as the rows themselves say; "
        "no image to validate b with"
    )


def test_folds_leave_test_rows_out_and_heed_no_other_mark() -> None:
    rows = [Record(f"{n}", (CLASSES[n % 2],), split=("train", "val", "test", None)[n // 2 % 4]) for n in range(32)]
    parts = [keys(chosen) for _, chosen in va.folds(ListSource(tuple(rows), CLASSES[:2]), k=3)]
    assert sorted(key for part in parts for key in part) == sorted(r.key for r in rows if r.split != "test")


def test_another_seed_gives_other_folds() -> None:
    source = source_with([(name, f"{name}{n}") for name in CLASSES for n in range(20)])
    for rows in (source, source_of({"a": 20, "b": 20})):
        first, again, other = ([keys(chosen) for _, chosen in folds(rows, 4, seed)] for seed in (0, 0, 1))
        assert first == again != other


@pytest.mark.parametrize(
    ("rows", "k", "message"),
    [
        ([("ant", "a"), ("bee", "b")] * 3, 3, "3 folds of 2 groups cannot be: give fewer folds"),
        ([("ant", None), ("bee", None)] * 2, 5, "5 folds of 4 images are not possible: give fewer folds"),
        ([("ant", None), ("bee", None)] * 2, 1, "1 folds cannot be: give 2 or more"),
        ([("ant", "a"), ("ant", "b"), ("bee", "b"), ("bee", "b")], 2, "class 'bee' comes from one group"),
        ([("ant", None), ("ant", None), ("bee", None)], 2, "class 'bee' has 1 image; folds need 2 at least"),
    ],
)
def test_folds_that_cannot_be(rows: list[tuple[str, str | None]], k: int, message: str) -> None:
    with pytest.raises(SplitError, match=re.escape(message)):
        folds(source_with(rows, CLASSES[:2]), k)


def test_splits_by_group_that_cannot_be() -> None:
    for rows in ([("ant", "a"), ("bee", "a")], [("ant", "a"), ("bee", "b")]):
        with pytest.raises(SplitError, match="every class comes from one group, so that none can be spared"):
            split(source_with(rows, CLASSES[:2]))
    broken = [Record(f"{row}.jpg", (name,), group=f"{row % 4}", problem="gone") for row, name in enumerate(CLASSES * 4)]
    with pytest.raises(SplitError, match="gone"):  # which is not for the groups
        split(Manifest(ListSource(tuple(broken), CLASSES), broken))


def test_several_labels_are_refused_where_one_is_asked_for() -> None:
    rows = (Record("1.jpg", ("ant",)), Record("2.jpg", ("bee", "ant")), Record("3.jpg"))
    manifest = Manifest(ListSource(rows, CLASSES), rows)
    check_single_labels(manifest.select([0, 2]))
    for divide in (split, folds):
        with pytest.raises(SplitError, match=r"^2\.jpg has 2 labels \(bee, ant\), and an image can have one here"):
            divide(manifest, task="single")
