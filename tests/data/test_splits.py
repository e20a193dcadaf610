"""Dividing rows: stratified, ranked by a hash, the same everywhere."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.data.split_report import SplitReport
from visionadapt.data.splits import check_usable, split
from visionadapt.errors import SplitError
from visionadapt.sources.opening import manifest_of


@dataclass(frozen=True)
class ListSource:
    """Rows that are given, none of which has bytes."""

    rows: tuple[Record, ...]
    classes: tuple[str, ...]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def read(self, record: Record) -> bytes:
        raise NotImplementedError


def source_of(counts: dict[str, int]) -> ListSource:
    rows = tuple(Record(f"{name}/{row}", (name,)) for name, count in counts.items() for row in range(count))
    return ListSource(rows, tuple(counts))


def keys(manifest: Manifest) -> list[str]:
    return [manifest.key(index) for index in range(len(manifest))]


def labels(manifest: Manifest) -> Counter[str | None]:
    return Counter(record.label for record in manifest)


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        (0.2, {"two": 1, "three": 1, "ten": 2, "hundred": 20}),
        (0.3, {"two": 1, "three": 1, "ten": 3, "hundred": 30}),
        (0.001, {"two": 1, "three": 1, "ten": 1, "hundred": 1}),
        (0.999, {"two": 1, "three": 2, "ten": 9, "hundred": 99}),
        (0.5, {"two": 1, "three": 2, "ten": 5, "hundred": 50}),
    ],
)
def test_counts_by_hand(val: float, expected: dict[str, int]) -> None:
    counts = {"two": 2, "three": 3, "ten": 10, "hundred": 100}
    train, chosen = split(source_of(counts), val)
    assert labels(chosen) == expected
    assert labels(train) == {name: count - expected[name] for name, count in counts.items()}


def test_the_rows_with_the_smallest_hashes_are_chosen_and_the_order_kept() -> None:
    source = source_of({"a": 10, "b": 10})
    train, chosen = split(source, 0.3, seed=7)
    for name in ("a", "b"):
        ranked = sorted((f"{name}/{row}" for row in range(10)), key=lambda key: stable_hash(7, key))
        assert [key for key in keys(chosen) if key.startswith(name)] == sorted(ranked[:3])
    order = [record.key for record in source]
    assert keys(train) == [key for key in order if key in keys(train)]
    assert sorted(keys(train) + keys(chosen)) == sorted(order)


@pytest.mark.slow
@given(st.lists(st.integers(2, 12), min_size=2, max_size=4), st.floats(0.01, 0.99), st.integers(), st.randoms())
def test_neither_order_nor_other_classes_matter(counts: list[int], val: float, seed: int, draw: random.Random) -> None:
    source = source_of({f"c{number}": count for number, count in enumerate(counts)})
    chosen = set(keys(split(source, val, seed)[1]))
    shuffled = ListSource(tuple(draw.sample(source.rows, len(source.rows))), source.classes)
    assert set(keys(split(shuffled, val, seed)[1])) == chosen
    more = ListSource((*source.rows, *source_of({"z": 5}).rows), (*source.classes, "z"))
    assert {key for key in keys(split(more, val, seed)[1]) if not key.startswith("z/")} == chosen
    for number, count in enumerate(counts):
        assert 1 <= sum(key.startswith(f"c{number}/") for key in chosen) < count


def test_another_seed_chooses_other_rows() -> None:
    source = source_of({"a": 50, "b": 50})
    assert keys(split(source, seed=0)[1]) == keys(split(manifest_of(source), seed=0)[1])
    assert keys(split(source, seed=0)[1]) != keys(split(source, seed=1)[1])


def marked(parts: Sequence[tuple[str, str | None]]) -> ListSource:
    return ListSource(
        tuple(Record(f"{row}", (name,), split=part) for row, (name, part) in enumerate(parts)), ("a", "b")
    )


def test_rows_that_say_val_are_the_validation_part() -> None:
    source = marked([("a", "train"), ("b", None), ("a", "val"), ("b", "test"), ("b", "val"), ("a", None)])
    for val in (0.2, 0.9):
        train, chosen = split(source, val)
        assert keys(train) == ["0", "1", "5"]
        assert keys(chosen) == ["2", "4"]


def test_rows_marked_test_belong_to_neither_part() -> None:
    rows = [("a", "train"), ("a", "test"), ("b", "train"), ("b", "test"), ("a", "train"), ("b", "train")]
    source = marked([*rows, ("a", "test")])
    for given_rows in (source, manifest_of(source)):
        train, chosen = split(given_rows)
        assert sorted(keys(train) + keys(chosen)) == ["0", "2", "4", "5"]


def test_a_class_that_only_the_test_rows_have_disturbs_nothing() -> None:
    source = source_of({"a": 4, "b": 4})
    more = ListSource((*source.rows, Record("x", ("unknown",), split="test")), source.classes)
    assert keys(split(more)[0]) == keys(split(source)[0])


def test_unlabelled_rows_are_divided_as_a_class_of_their_own() -> None:
    source = source_of({"a": 4, "b": 4})
    for count, expected in ((1, 0), (10, 2)):
        rows = (*source.rows, *(Record(f"none/{row}") for row in range(count)))
        train, chosen = split(ListSource(rows, source.classes))
        assert labels(chosen)[None] == expected
        assert labels(train)[None] == count - expected


@pytest.mark.parametrize(
    ("source", "val", "message"),
    [
        (source_of({"a": 2}), 0.2, "has one class (a); a classifier needs two"),
        (ListSource((), ("a", "b")), 0.2, "holds no images"),
        (ListSource((Record("x"),), ()), 0.2, "has no labels"),
        (source_of({"a": 2, "b": 2, "c": 0}), 0.2, "no image of class 'c' to train on"),
        (marked([("a", "train"), ("b", "val")]), 0.2, "no image of class 'b' to train on"),
        *((source_of({"a": 2, "b": 2}), val, f"--val {val} is no share") for val in (0, 1, -0.1, 20, float("nan"))),
    ],
)
def test_what_cannot_be_divided_is_told(source: ListSource, val: float, message: str) -> None:
    with pytest.raises(SplitError, match=re.escape(message)):
        split(source, val)


def test_what_is_left_must_be_usable() -> None:
    train, chosen = split(source_of({"a": 3, "b": 3}), 0.5)

    def check(problem: Callable[[str, Record], str | None]) -> None:
        parts = {"train": train, "val": chosen}
        check_usable(
            {
                name: (part, [Finding(row, problem=problem(name, record)) for row, record in enumerate(part)])
                for name, part in parts.items()
            }
        )

    check(lambda name, record: None)
    with pytest.raises(SplitError, match=r"no usable image to validate with: 4 × torn \(such as "):
        check(lambda name, record: "torn" if name == "val" else None)
    with pytest.raises(SplitError, match=r"no usable image of class 'a' to train on: 1 × torn \(a/"):
        check(lambda name, record: "torn" if record.label == "a" else None)
    with pytest.raises(SplitError, match=r"no usable image to train on: 1 × of a \(a/.*, 1 × of b"):
        check(lambda name, record: f"of {record.label}")
    with pytest.raises(SplitError, match="no usable image to validate with: it has no rows"):
        check_usable({"train": (train, [Finding(row) for row in range(len(train))]), "val": (chosen.select([]), [])})


def test_the_report_names_classes_that_are_surely_one() -> None:
    report = SplitReport.of(*split(source_of({"Cat": 3, "cat": 3, "dog": 3})))
    assert report.alike == (("Cat", "cat"),)
    assert "'Cat' and 'cat'" in str(report)
    assert SplitReport.of(*split(source_of({"cat": 3, "dog": 3}))).alike == ()
