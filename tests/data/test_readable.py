"""Rare classes: trained with what is usable, and refused before the work begins where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from visionadapt.core.records import Manifest, Record
from visionadapt.data.readable import readable
from visionadapt.data.split_report import SplitReport
from visionadapt.data.splits import split
from visionadapt.errors import ImageError, SplitError
from visionadapt.images import DecodeAdapter
from visionadapt.sources import FolderSource

from .test_splits import keys, labels, source_of

Make = Callable[..., Path]
DECODE = DecodeAdapter().decode


def test_a_class_with_one_image_is_trained_on_and_told_as_not_validated() -> None:
    train, val = split(source_of({"a": 10, "b": 1, "c": 10}))
    assert (labels(train)["b"], labels(val)["b"]) == (1, 0)
    report = SplitReport.of(train, val)
    assert report.absent == ("b",) and "b" in str(report)
    without = split(source_of({"a": 10, "c": 10}))
    assert keys(val) == keys(without[1])


def test_the_only_usable_row_of_a_class_is_trained_on() -> None:
    for usable in range(5):
        rows = [Record(f"b/{row}", ("b",), problem=None if row == usable else "gone") for row in range(5)]
        source = source_of({"a": 10, "b": 0})
        train, _ = split(Manifest(source, (*source.rows, *rows), source.classes), 0.8)
        assert f"b/{usable}" in keys(train)
        assert sorted(keys(train)) == sorted(keys(train), key=lambda key: (key[0], int(key[2:])))


def broken(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).write_bytes(b"no image")


def test_a_class_whose_training_images_are_broken_gets_one_from_validation(tinted_folder: Make) -> None:
    root = tinted_folder(count=4)
    before, _ = split(FolderSource(root))
    broken(root, [key for key in keys(before) if key.startswith("blood")])
    train, val = split(FolderSource(root))
    moved, rest = readable(train, val, DECODE)
    assert {*keys(moved)} - {*keys(train)} == {key for key in keys(val) if key.startswith("blood")}
    assert {*keys(moved), *keys(rest)} == {*keys(train), *keys(val)} and not {*keys(moved)} & {*keys(rest)}
    assert keys(moved) == [record.key for record in FolderSource(root) if record.key in keys(moved)]


def test_groups_move_as_a_whole(tinted_folder: Make) -> None:
    root = tinted_folder(count=4)
    train, val = split(FolderSource(root, group="[01]|[23]"), val=0.5)
    broken(root, [key for key in keys(train) if key.startswith("blood")])
    moved, rest = readable(train, val, DECODE)
    assert not set(moved.each_group()) & set(rest.each_group()) or not len(rest)


def test_one_image_of_each_class_is_read(tinted_folder: Make) -> None:
    read: list[str] = []

    def decode(data: bytes, key: str) -> None:
        read.append(key)
        if key == "grass/0.png":
            raise ImageError(key, "broken")

    train, val = split(FolderSource(tinted_folder()), val=0.2, seed=1)
    assert readable(train, val, decode) == (train, val)
    assert sum(key.startswith("blood") for key in read) <= 2 and len(read) <= 5


@pytest.mark.parametrize(("part", "name"), [("train", "train/blood/0.png"), ("val", "val/blood/0.png")])
def test_what_cannot_be_read_is_told_before_the_work(tinted_folder: Make, part: str, name: str) -> None:
    root = tinted_folder("data/train", count=2).parent
    tinted_folder("data/val", count=2)
    broken(root, [f"{part}/{label}/{number}.png" for label in ("blood", "grass") for number in range(2)])
    with pytest.raises(SplitError, match=name):
        readable(*split(FolderSource(root)), DECODE)


def test_an_image_that_may_come_back_is_no_reason_to_stop(tinted_folder: Make) -> None:
    def decode(data: bytes, key: str) -> None:
        raise ImageError(key, "the server is busy", lasting=False)

    train, val = split(FolderSource(tinted_folder(count=3)))
    assert readable(train, val, decode) == (train, val)
