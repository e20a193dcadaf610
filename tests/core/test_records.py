"""Records and the manifest: the same rows in few bytes."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import SourceError
from visionadapt.sources.opening import manifest_of

CLASSES = ("ant", "bee", "naïve")


@dataclass(frozen=True)
class ListSource:
    """Rows that are given; a row's bytes are its key."""

    rows: tuple[Record, ...] = ()
    classes: tuple[str, ...] = CLASSES

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def read(self, record: Record) -> bytes:
        return record.key.encode("utf-8", "surrogatepass")


TEXTS = st.text(max_size=6) | st.sampled_from(["a/ü.jpg", "\udcff.jpg", "\ud800"])
OPTIONAL = st.none() | TEXTS
ROWS = st.lists(
    st.builds(
        Record,
        key=TEXTS,
        labels=st.lists(st.sampled_from(CLASSES), max_size=3).map(tuple),
        group=OPTIONAL,
        split=st.sampled_from([None, "train", "val", "test"]),
        location=TEXTS,
        problem=OPTIONAL,
        columns=st.dictionaries(st.sampled_from(["age", "place", ""]), TEXTS, max_size=2),
    ),
    max_size=8,
)


def plain(record: Record) -> Record:
    """A record as the manifest gives it back: a location that says no more than the key is left out."""
    location = None if record.location == record.key else record.location
    return Record(**{**record.__dict__, "location": location})


def columns_are_their_rows(manifest: Manifest) -> None:
    """Going through a column gives what its rows give one by one."""
    rows = range(len(manifest))
    assert [list(labels) for labels in manifest.each_labels()] == [list(manifest.labels(row)) for row in rows]
    for name in ("group", "split", "problem"):
        assert list(getattr(manifest, f"each_{name}")()) == [getattr(manifest, name)(row) for row in rows]


@pytest.mark.slow
@given(ROWS)
def test_a_manifest_is_the_list_of_its_records(rows: list[Record]) -> None:
    manifest = Manifest(ListSource(), rows)
    assert len(manifest) == len(rows)
    assert list(manifest) == [plain(record) for record in rows]
    assert [manifest.key(index) for index in range(len(rows))] == [record.key for record in rows]
    expected = [CLASSES.index(record.labels[0]) if record.labels else -1 for record in rows]
    assert [manifest.label(index) for index in range(len(rows))] == expected
    counts = tuple(sum(record.labels.count(name) for record in rows) for name in CLASSES)
    assert manifest.class_counts() == counts
    columns_are_their_rows(manifest)
    columns_are_their_rows(manifest.select(range(len(rows) - 1, -1, -1)))
    assert list(pickle.loads(pickle.dumps(manifest))) == list(manifest)


@pytest.mark.slow
@given(ROWS.filter(bool), st.data())
def test_selections_are_those_of_the_list(rows: list[Record], data: st.DataObject) -> None:
    manifest = Manifest(ListSource(), rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    again = data.draw(st.lists(st.integers(0, max(len(chosen) - 1, 0)), max_size=4)) if chosen else []
    part = manifest.select(chosen)
    assert list(part) == [plain(rows[index]) for index in chosen]
    assert list(part.select(again)) == [plain(rows[chosen[index]]) for index in again]
    counts = tuple(sum(rows[index].labels.count(name) for index in chosen) for name in CLASSES)
    assert part.class_counts() == counts
    labelled = manifest.where(lambda record: bool(record.labels))
    assert list(labelled) == [plain(record) for record in rows if record.labels]
    assert list(manifest) == [plain(record) for record in rows]
    with pytest.raises(IndexError):
        _ = part[len(chosen)]


def test_rows_are_read_by_their_source() -> None:
    source = ListSource((Record("b"), Record("ä")))
    assert manifest_of(source).read(1) == "ä".encode()
    assert manifest_of(source).select([1, 0]).read(1) == b"b"
    manifest = manifest_of(source)
    assert manifest_of(manifest) is manifest
    assert repr(manifest).startswith("Manifest(2 rows, 3 classes, ListSource(")


def test_an_unknown_class_is_told() -> None:
    with pytest.raises(SourceError, match="x: class 'wasp' is none of the 3 classes known"):
        Manifest(ListSource(), [Record("x", ("wasp",))])
    assert Manifest(ListSource(), [Record("x", ("wasp",))], ["wasp"]).label(0) == 0


def many(count: int) -> Iterator[Record]:
    return (
        Record(f"{CLASSES[row % 3]}/{row:08d}.jpg", (CLASSES[row % 3],), group=f"g{row % 50}", split="train")
        for row in range(count)
    )


@pytest.mark.slow
def test_a_row_costs_bytes_and_no_objects() -> None:
    """Key of 16 bytes and its end, index and its end, two codes, the row's number: 56 bytes, and what arrays spare."""
    count = 50_000
    tracemalloc.start()
    manifest = Manifest(ListSource(), many(count))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 80
    assert len(pickle.dumps(manifest)) / count < 60
    assert len(pickle.dumps(manifest.select(range(100)))) < len(pickle.dumps(manifest))


@pytest.mark.slow
def test_further_columns_and_locations_cost_bytes_too() -> None:
    count = 20_000
    rows = (Record(str(row), location=f"{row}.jpg", columns={"age": str(row % 90)}) for row in range(count))
    tracemalloc.start()
    manifest = Manifest(ListSource(), rows)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 120
    assert manifest[12_345] == Record("12345", location="12345.jpg", columns={"age": "15"})


def test_iterating_makes_no_row_dearer_than_another() -> None:
    """A row's group is found without looking through all groups: as many steps for 20 groups as for 20,000."""
    manifest = Manifest(ListSource(), (Record(str(row), group=str(row)) for row in range(20_000)))
    assert [manifest[row].group for row in (0, 19_999)] == ["0", "19999"]
    tracemalloc.start()
    _ = manifest[10_000].group
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


def test_a_record_s_one_label() -> None:
    assert Record("a").label is None
    assert Record("a", ("ant",)).label == "ant"
