"""Tables whose images lie in several folders: `root=[a, b]`, and the advice to give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionadapt.auditing.files import unlisted_files
from visionadapt.core import spec
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import TableSource
from visionadapt.sources.opening import open_source

from .test_folder import make

NAMES = [f"ISIC_{number}" for number in range(12)]


@pytest.fixture
def halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of twelve images, six in each of two folders; its folder is the working folder."""
    for part, names in (("part_1", NAMES[:6]), ("part_2", NAMES[6:])):
        make(tmp_path / "ham", *(f"{part}/{name}.jpg" for name in names))
    rows = "".join(f"{name},{('nv', 'mel')[number % 2]}\n" for number, name in enumerate(NAMES))
    (tmp_path / "ham/meta.csv").write_text(f"image_id,dx\n{rows}")
    monkeypatch.chdir(tmp_path / "ham")
    return tmp_path / "ham"


def test_each_path_leads_to_a_file_in_one_of_several_folders(halves: Path) -> None:
    table = TableSource("meta.csv", "image_id", "dx", root=["part_1", "part_2"], suffix=".jpg")
    rows = list(table)
    assert [(row.key, row.problem) for row in rows] == [(f"{name}.jpg", None) for name in NAMES]
    assert [table.read(row) for row in rows] == [
        (halves / f"part_{1 + number // 6}/{name}.jpg").read_bytes() for number, name in enumerate(NAMES)
    ]
    assert all(table.version_of(row) for row in rows)
    again = spec.parse(spec.format(table.resolved(), "source"), "source")
    assert [again.read(row) for row in again] == [table.read(row) for row in rows]


def test_a_name_that_is_in_two_of_the_folders_is_refused(halves: Path) -> None:
    make(halves, f"part_2/{NAMES[0]}.jpg")
    first, *others = TableSource("meta.csv", "image_id", "dx", root=["part_1", "part_2"], suffix=".jpg")
    assert "part_1" in (first.problem or "") and "part_2" in (first.problem or "")
    assert [row.problem for row in others] == [None] * 11


def test_nothing_outside_of_the_folders_is_read(halves: Path) -> None:
    make(halves, "secret.jpg", "part_3/other.jpg")
    (halves / "part_2/link.jpg").symlink_to(halves / "secret.jpg")
    (halves / "a.csv").write_text(
        f"image\n../secret.jpg\n{halves}/part_3/other.jpg\nlink.jpg\n../part_2/{NAMES[6]}.jpg\n"
    )
    table = TableSource("a.csv", "image", root=["part_1", "part_2"])
    *hostile, named = table
    assert all(row.problem for row in hostile)
    assert table.read(named) == (halves / f"part_2/{NAMES[6]}.jpg").read_bytes()
    for row in hostile:
        for location in (row.location, row.key, "secret.jpg", "part_2/link.jpg", "part_3/other.jpg"):
            with pytest.raises(ImageError):
                table.read(type(row)(row.key, location=location))


def test_a_folder_that_is_no_folder_here_is_refused(halves: Path) -> None:
    for other in ("part_3", "meta.csv", "s3://bucket/photos", "hf://datasets/me/hats"):
        with pytest.raises(SourceError, match=other):
            TableSource("meta.csv", "image_id", "dx", root=["part_1", other])


def test_an_audit_finds_images_of_all_folders_that_no_row_names(halves: Path) -> None:
    make(halves, "part_1/a.jpg", "part_2/b.jpg", "c.jpg")
    table = TableSource("meta.csv", "image_id", "dx", root=["part_1", "part_2"], suffix=".jpg")
    assert [found.file for found in unlisted_files(table, table)] == ["part_1/a.jpg", "part_2/b.jpg"]


def test_the_folders_of_all_images_are_advised_and_find_them(halves: Path) -> None:
    example = TableSource("meta.csv").example
    assert all(row.problem is None for row in open_source(example)), example
    for given in ({}, {"suffix": ".jpg"}, {"root": "part_1", "suffix": ".jpg"}):
        table = TableSource("meta.csv", "image_id", "dx", **given)
        told = table.advice(next(row for row in table if row.problem)) or ""
        assert "root=[part_1, " in told and "part_2]" in told, told
    with pytest.raises(SourceError) as caught:
        open_source(".").classes  # noqa: B018
    advised = open_source(str(caught.value).rpartition('--data "')[2].partition('"')[0])
    assert [row.label for row in advised] == ["nv", "mel"] * 6 and all(row.problem is None for row in advised)
    (halves / "labels").mkdir()
    (halves / "meta.csv").rename(halves / "labels/meta.csv")
    assert all(row.problem is None for row in open_source(TableSource("labels/meta.csv").example))


def test_a_folder_that_has_few_of_the_files_is_not_advised(halves: Path) -> None:
    make(halves.parent, *(f"other/{name}.jpg" for name in NAMES[:8]))
    (halves / "meta.csv").rename(halves.parent / "other.csv")
    (halves.parent / "empty").mkdir()
    (halves.parent / "other.csv").rename(halves.parent / "empty/meta.csv")
    assert "root=" not in TableSource(halves.parent / "empty/meta.csv").example
    make(halves.parent, *(f"other/{name}.jpg" for name in NAMES[8:]))
    assert str(halves.parent / "other") in TableSource(halves.parent / "empty/meta.csv").example


def test_the_folder_with_most_files_is_advised_and_none_of_two_with_the_same(halves: Path) -> None:
    """The numbers of a training set begin anew in the test set."""
    (halves / "train.csv").write_text("id,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(8)))
    make(halves, *(f"train/train/{n}.jpg" for n in range(8)), *(f"test/test/{n}.jpg" for n in range(5)))
    assert TableSource("train.csv").example == "csv(train.csv, image=id, label=label, root=train/train, suffix=.jpg)"
    make(halves, *(f"test/test/{n}.jpg" for n in range(5, 8)))
    table = TableSource("train.csv", "id", "label")
    assert TableSource("train.csv").example == "csv(train.csv, image=id, label=label)"
    told = table.advice(next(iter(table))) or ""
    assert "train/train/0.jpg" in told and "test/test/0.jpg" in told
