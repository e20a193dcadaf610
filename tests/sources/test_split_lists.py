"""Lists of splits beside class folders, as Food-101, DTD, MIT Indoor67 and others have them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from visionadapt.core import spec
from visionadapt.data.splits import split
from visionadapt.errors import SourceError
from visionadapt.sources import BucketSource, FolderSource
from visionadapt.sources.opening import open_images, open_source

from .test_folder import make
from .test_layouts import found

CLASSES = ("cat", "dog")
SETS = {
    "food-101": ("images", "meta/{}.txt", {"train": "train", "test": "test"}, "{stem}"),
    "dtd": ("images", "labels/{}1.txt", {"train": "train", "val": "val", "test": "test"}, "{path}"),
    "indoor67": ("Images", "{}Images.txt", {"train": "Train", "test": "Test"}, "{path}"),
    "eurosat": ("", "{}.csv", {"train": "train", "val": "validation", "test": "test"}, "{number},{path},0,{label}"),
    "speech commands": ("", "{}_list.txt", {"val": "validation", "test": "testing"}, "{path}"),
    "sun397": ("", "Partitions/{}ing_01.txt", {"train": "Train", "test": "Test"}, "/{path}"),
    "places": ("", "places_{}.txt", {"train": "train_standard", "val": "val"}, "/{path} {number}"),
    "tabs": ("images", "{}.txt", {"val": "val", "test": "test"}, "images/{path}\t{label}\t0\t9\t9"),
    "beside": ("images", "{}.txt", {"train": "train", "test": "test"}, "images/{path}"),
    "below": ("", "splits/{}.txt", {"train": "train", "test": "test"}, "{path}"),
}
PARTS = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}


def published(root: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Write a set of this layout, of 8 images in each class; return the folder of the images, and the lists."""
    folder, pattern, names, line = SETS[name]
    images = root / folder if folder else root
    make(images, *(f"{label}/{label}_{number}.jpg" for label in CLASSES for number in range(8)))
    options: dict[str, Any] = {}
    for part, called in names.items():
        path = root / pattern.format(called)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(label, f"{label}/{label}_{number}") for label in CLASSES for number in PARTS[part]]
        lines = [
            line.format(stem=stem, path=f"{stem}.jpg", number=number, label=label)
            for number, (label, stem) in enumerate(rows)
        ]
        header = [",Filename,Label,ClassName"] if path.suffix == ".csv" else []
        path.write_text("\n".join([*header, *lines, ""]))
        options[part] = str(path)
    return images, options


def usable(source: Any) -> dict[str, str | None]:
    return {record.key: record.split for record in source if record.problem is None}


def problems(source: Any) -> dict[str, str]:
    return {record.key: record.problem for record in source if record.problem is not None}


@pytest.mark.parametrize("name", SETS)
def test_lists_say_the_split_of_each_image(tmp_path: Path, name: str) -> None:
    images, options = published(tmp_path, name)
    source = FolderSource(images, **options)
    used = {*options} | ({"train"} - {*options})
    expected = {(part, label): len(PARTS[part]) for part in used for label in CLASSES}
    assert found(source) == (CLASSES, Counter(expected))
    assert source.splits == tuple(part for part in PARTS if part in used)
    told = problems(source)
    assert len(told) == 16 - sum(expected.values())
    assert all("is in none of the lists" in problem for problem in told.values())
    assert [record.key for record in source] == [record.key for record in FolderSource(images, train=".")]
    assert spec.parse(spec.format(source, "source"), "source") == source


@pytest.mark.parametrize("name", SETS)
def test_lists_that_are_not_used_are_told_with_the_text_that_uses_them(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = published(tmp_path / "set", name)
    monkeypatch.chdir(tmp_path)
    given = images.relative_to(tmp_path)
    drop = ("Partitions", "splits")
    assert name != "indoor67" or FolderSource(given).notes() == (
        "set/TrainImages.txt and set/TestImages.txt, lists of splits, are not used; --data "
        '"folder(set/Images, train=set/TrainImages.txt, test=set/TestImages.txt)" uses them',
    )
    (line,) = [line for line in FolderSource(given, drop=drop).notes() if "not used" in line]
    told = open_source(line.partition('--data "')[2].partition('"')[0])
    assert isinstance(told, FolderSource)
    assert usable(told) == usable(FolderSource(images, **options)) and len(usable(told)) >= 12
    assert not [line for line in told.notes() if "not used" in line]
    monkeypatch.chdir(images)
    assert [line for line in FolderSource(".", drop=drop).notes() if "not used" in line]


def test_other_texts_beside_folders_are_not_told(tmp_path: Path) -> None:
    images, options = published(tmp_path / "set", "food-101")
    for path in options.values():
        Path(path).write_text("a list\nof something else\n")
    (tmp_path / "set" / "meta" / "train.csv").write_text("no,column\n1,2\n")
    os.mkfifo(tmp_path / "set" / "test.txt")
    assert FolderSource(images).notes() == ()
    published(tmp_path / "set", "food-101")
    (tmp_path / "set" / "images").rename(tmp_path / "set" / "mine")
    assert FolderSource(tmp_path / "set" / "mine").notes() == ()  # the folder above may be of other things
    make(tmp_path / "set" / "images", "train/cat/1.jpg", "test/cat/2.jpg")
    (tmp_path / "set" / "meta" / "train.txt").write_text("train/cat/1\n")
    assert FolderSource(tmp_path / "set" / "images").notes() == ()  # the folders are splits


@pytest.mark.parametrize(("name", "beside"), [("food-101", []), ("dtd", ["imdb/imdb.mat"]), ("indoor67", [])])
def test_a_root_that_holds_images_and_lists_is_answered_with_both(tmp_path: Path, name: str, beside: list[str]) -> None:
    images, options = published(tmp_path, name)
    make(tmp_path, *beside)
    with pytest.raises(SourceError, match=f"{images} \\(with its lists of splits --data ") as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    told = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
    assert told == FolderSource(images, **options)


def test_paths_of_lists_are_those_of_the_current_folder_or_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = published(tmp_path / "set", "below")
    monkeypatch.chdir(tmp_path)
    below = FolderSource("set", train="splits/train.txt", test=str(images / "splits/test.txt"))
    beside = spec.parse("folder(set, train=set/splits/train.txt, test=[set/splits/test.txt])", "source")
    expected = usable(below)
    assert usable(beside) == expected and len(expected) == 12
    assert below.classes == CLASSES  # and no class called splits
    resolved = beside.resolved()
    assert all(Path(path).is_absolute() for path in (*resolved.train, *resolved.test))
    monkeypatch.chdir("/")
    assert usable(resolved) == usable(spec.parse(spec.format(resolved, "source"), "source")) == expected


def test_folders_and_lists_together(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{kind}/{name}.jpg" for part in ("train", "test") for kind in CLASSES for name in "12"))
    (tmp_path / "val.txt").write_text("train/cat/1.jpg\ntrain/dog/1.jpg\n")
    splits = {"train": 2, "val": 2, "test": 4}
    given: dict[str, Any] = {"train": "train", "test": "test"}
    for options in ({}, given):
        source = FolderSource(tmp_path, val="val.txt", **options)
        assert Counter(usable(source).values()) == splits
        assert source.splits == ("train", "val", "test")
    train, val = split(source, val=0.25)
    assert {train[row].key for row in range(len(train))} == {"train/cat/2.jpg", "train/dog/2.jpg"}
    assert len(val) == 2
    with pytest.raises(SourceError, match="need train="):
        FolderSource(tmp_path, val="val.txt", test="test")
    with pytest.raises(SourceError, match="both say the splits"):
        FolderSource(tmp_path, val="val.txt", split="train|test")
    with pytest.raises(SourceError, match=r"train=trian is no folder below .* no file that lists images; did you"):
        FolderSource(tmp_path, train="trian")
    assert {row.split for row in open_images(f"folder({tmp_path}, val=val.txt)")} == {None}


def test_what_lists_and_folders_do_not_have_in_common_is_no_secret(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "cat/2.jpg", "cat/3.JPG", "dog/1.jpg", "dog/2.png", "dog/new.jpg", "dog/notes.txt")
    (tmp_path / "a.txt").write_text("cat/1.jpg\ndog/1\ncat/2.jpg\ncat/9.jpg\ncat/9.jpg\ncat/3.jpg\ndog/notes.txt\n")
    (tmp_path / "b.txt").write_text("cat/2\n\n  \ndog/2.png\n")
    source = FolderSource(tmp_path, train="a.txt", test="b.txt")
    assert usable(source) == {"cat/1.jpg": "train", "dog/1.jpg": "train", "dog/2.png": "test"}
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    assert problems(source) == {
        "cat/2.jpg": f"is in {a} and in {b}",
        "cat/3.JPG": f"is in none of the lists {a} and {b}",
        "dog/new.jpg": f"is in none of the lists {a} and {b}",
        "cat/9.jpg": f"no such file ({a}, line 4)",
        "cat/3.jpg": f"no such file ({a}, line 6)",
        "dog/notes.txt": f"is no image in a class folder ({a}, line 7)",
    }
    assert Counter(record.split for record in source if record.problem) == {"train": 3, None: 3}
    missing = next(record for record in source if record.key == "cat/3.jpg")
    assert source.advice(missing) == "there is cat/3.JPG"
    b.write_text("cat/9.jpg\n")
    with pytest.raises(SourceError, match="none of its 1 path"):
        list(source)  # whose other list lacks the image, too
    again = FolderSource(tmp_path, train=[tmp_path / "a.txt", tmp_path / "a.txt"])
    assert usable(again).keys() == {"cat/1.jpg", "cat/2.jpg", "dog/1.jpg"}  # twice in one split is no contradiction


def test_a_class_that_only_the_list_for_testing_has_is_not_trained(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "emu/1.jpg")
    (tmp_path / "test.txt").write_text("emu/1.jpg\ncat/2.jpg\n")
    source = FolderSource(tmp_path, test="test.txt")
    assert source.classes == CLASSES and source[3].labels == ("emu",) and len(source) == 4


@pytest.mark.parametrize("label", [None, "^([a-z]+)/"])
def test_a_class_that_no_list_names_is_not_trained(tmp_path: Path, label: str | None) -> None:
    make(tmp_path, *(f"{kind}/{number}.jpg" for kind in (*CLASSES, "emu", "fox", "gnu") for number in "123"))
    (tmp_path / "train.txt").write_text("cat/1.jpg\ncat/3.jpg\ndog/1.jpg\ndog/3.jpg\ngnu/1.jpg\n")
    (tmp_path / "test.txt").write_text("cat/2.jpg\ndog/2.jpg\nfox/1.jpg\ngnu/1.jpg\n")
    source = FolderSource(tmp_path, label=label, train="train.txt", test="test.txt")
    assert source.classes == (*CLASSES, "gnu")  # whose image is in two lists, which is not to be missed
    assert source.splits == ("train", "test")
    assert [record.labels for record in source if record.key == "fox/1.jpg"] == [("fox",)]
    train, val = split(FolderSource(tmp_path, label=label, train="train.txt", test="test.txt", drop="gnu"), val=0.5)
    assert train.classes == val.classes == CLASSES  # and it can be trained on
    assert problems(source).keys() >= {f"emu/{number}.jpg" for number in "123"}
    (tmp_path / "hen").mkdir()  # without any image: a mistake
    again = FolderSource(tmp_path, train="train.txt", test="test.txt")
    assert again.classes == (*CLASSES, "gnu", "hen")
    assert "the lists name no image to train on of emu and fox: not among the classes" in source.notes()


@pytest.mark.parametrize("line", ["/home/me/set/{}", r"D:\set\{}", "set/pictures/{}"])
def test_a_list_of_another_machine_is_answered_with_how_to_write_its_paths(tmp_path: Path, line: str) -> None:
    make(tmp_path / "images", "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "train.txt").write_text("".join(line.format(f"{kind}/1.jpg\r\n") for kind in CLASSES))
    source = FolderSource(tmp_path / "images", train=tmp_path / "train.txt")
    with pytest.raises(SourceError, match=r"none of its 2 paths .* write that as cat/1\.jpg, and the others likewise"):
        list(source)


HOSTILE = {
    "../cat/1.jpg": "leads out of the folder",
    "../../../../etc/passwd": "leads out of the folder",
    "/etc/passwd": "no such file",
    "cat/../../out.jpg": "leads out of the folder",
    "cat/\0.jpg": "the path holds a NUL character",
    "http://me:secret@host/cat/1.jpg?token=secret": "is a URL",
    "x/" * 1000: "no such file",
    "..": "leads out of the folder",
    "cat": "is a folder, not a regular file",
    "x" * 400: "cannot be read",
}


def test_hostile_lines_are_rows_with_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "out.jpg", "root/cat/1.jpg", "root/cat/2.jpg", "root/dog/1.jpg")
    path = tmp_path / "root" / "train.txt"
    path.write_text("\n".join([*HOSTILE, "cat/2.jpg", "dog/1.jpg"]))
    source = FolderSource(tmp_path / "root", train=path, test=())
    records = list(source)
    assert len({record.key for record in records}) == len(records) == 3 + len(HOSTILE)
    assert usable(source) == {"cat/2.jpg": "train", "dog/1.jpg": "train"}
    told = [record.problem or "" for record in records if ", line " in (record.problem or "")]
    for number, (problem, expected) in enumerate(zip(told, HOSTILE.values(), strict=True), 1):
        assert problem.startswith(expected) and problem.endswith(f"({path}, line {number})")
    assert not any("secret" in f"{record.key} {record.problem}" for record in records)
    assert all(record.key.encode() and not record.key.startswith("/") for record in records)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfcat/1.jpg\r\ncat/2\r\n\r\n",
        "cat/1.jpg\ncat\\2.jpg\n".encode("utf-16"),
        b"  cat/1.jpg \n./cat//2.jpg",
        b"{root}/cat/1.jpg\ncat/2.jpg\rcat/1.jpg\n",
    ],
)
def test_ways_to_write_a_list(tmp_path: Path, content: bytes) -> None:
    make(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    (tmp_path / "test.txt").write_bytes(content.replace(b"{root}", str(tmp_path).encode()))
    source = FolderSource(tmp_path, test="test.txt")
    assert usable(source) == {"cat/1.jpg": "test", "cat/2.jpg": "test", "dog/1.jpg": "train"}


def test_names_in_any_normal_form_and_none(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "e\u0301")
    make(tmp_path, "cat/e\u0301.jpg", f"dog/{composed}.jpg", "dog/1.jpg")
    raw = os.fsdecode(b"\xff.jpg")
    (tmp_path / "cat" / raw).write_bytes(b"x")
    (tmp_path / "test.txt").write_bytes(f"cat/{composed}.jpg\ndog/e\u0301\n".encode() + b"cat/\xff.jpg\ncat/\xfe.jpg\n")
    source = FolderSource(tmp_path, test="test.txt")
    assert Counter(usable(source).values()) == {"test": 3, "train": 1}
    assert [*problems(source)] == ["cat/\\xfe.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.txt", b"", "is an empty list"),
        ("train.txt", b"\n \r\n", "is an empty list"),
        ("train.txt", b"bird/1.jpg\nbird/2.jpg\n", "none of its 2 paths is that of an image .* such as bird/1.jpg"),
        ("train.txt", b"cat/1.jpg 0\ndog/1.jpg\ncat/2.jpg 0\n", "line 2: has 1 cell where the header has 2"),
        ("train.txt", b"cat/1\tjpg 0\n", "none of its 1 path is that of an image"),
        ("train.txt", b"cat/1.jpg\n" + b"x" * 5000, "line 2: has more than 4,096 characters"),
        ("train.txt", b"x" * 5000, "line 1: has more than 4,096 characters"),
        ("train.txt", b"PAR1", "is a Parquet file"),
        ("train.json", b'{"cat": ["cat/1"]}', "is JSON"),
        ("train.txt", b"\xff\xfec", "UTF-16"),
        ("train.csv", b"a,b\n1,2\n", r"has no column of paths of images \(columns: a, b\)"),
        ("train.csv", b"file,b\ncat/1.jpg,2\ncat/2.jpg\n", "line 3: has 1 cell where the header has 2"),
        ("train.npy", b"\x93NUMPY", "is a NumPy file"),
    ],
)
def test_what_is_no_list_is_told_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    make(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        FolderSource(tmp_path, train=name).classes  # noqa: B018
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_pipes_and_huge_files_are_no_lists(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="is no regular file"):
        FolderSource(tmp_path, train="pipe")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SourceError, match="more than a list of images may have"):
        FolderSource(tmp_path, train="huge.txt").classes  # noqa: B018


def test_classes_in_the_names_of_files_may_be_listed(tmp_path: Path) -> None:
    make(tmp_path / "JPEGImages", "cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg")
    (tmp_path / "train.txt").write_text("cat_1.jpg\ndog_1.jpg\n")
    (tmp_path / "test.txt").write_text("cat_2.jpg\ndog_2.jpg\n")
    source = FolderSource(
        tmp_path / "JPEGImages", label="([a-z]+)_", train=tmp_path / "train.txt", test=tmp_path / "test.txt"
    )
    assert found(source) == (CLASSES, Counter({(part, label): 1 for part in ("train", "test") for label in CLASSES}))


def test_a_bucket_takes_folders_only() -> None:
    assert BucketSource("s3://bucket/photos", train="train.txt").train == ("train.txt",)
    with pytest.raises(SourceError, match="need train="):
        BucketSource("s3://bucket/photos", val="val")
