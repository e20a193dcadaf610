"""Tables in several CSV, TSV, JSON and JSON Lines files: one in each split's folder, or one for each split."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from visionadapt.auditing.files import unlisted_files
from visionadapt.core import spec
from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FolderSource, TableSource
from visionadapt.sources.opening import open_source

from .test_folder import make

SPLITS = {"train": "train", "valid": "val", "test": "test"}
HEADER = ("file_name", "label")


def written(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    """Write a table in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = [dict(zip(header, row, strict=True)) for row in rows]
    if path.suffix == ".json":
        path.write_text(json.dumps(objects))
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(each)}\n" for each in objects))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(f"{mark.join(row)}\n" for row in (header, *rows)))
    return path


def split_folders(root: Path, name: str = "metadata.csv") -> list[str]:
    """The layout of Hugging Face's imagefolder: a table in each split, with paths relative to it."""
    tables = []
    for folder in SPLITS:
        make(root / folder, *(f"{number}.png" for number in range(4)))
        tables.append(str(written(root / folder / name, [(f"{n}.png", "ab"[n % 2]) for n in range(4)])))
    return tables


def rows_of(source: Any) -> list[tuple[str, tuple[str, ...], str | None]]:
    """Key, labels and split of each row, of which none has a problem, and each can be read."""
    rows = list(source)
    assert [row.problem for row in rows if row.problem] == []
    for manifest in (Manifest(source, source), pickle.loads(pickle.dumps(Manifest(source, source)))):
        assert all(manifest.read(number).decode() in manifest.key(number) for number in range(len(manifest)))
    return [(row.key, row.labels, row.split) for row in rows]


EXPECTED = [(f"{folder}/{n}.png", ("ab"[n % 2],), split) for folder, split in SPLITS.items() for n in range(4)]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_a_table_in_each_split(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = split_folders(tmp_path / "set", f"metadata.{kind}")
    source = TableSource(tables, "file_name", "label", split="split")
    assert rows_of(source) == EXPECTED and source.classes == ("a", "b")
    assert source.name == "set" and source.notes() == () and source.columns == (*HEADER, "split")
    monkeypatch.chdir(tmp_path)
    text = f"{kind}([set/train/metadata.{kind}, set/valid/metadata.{kind}, set/test/metadata.{kind}], "
    named = spec.parse(f"{text}image=file_name, label=label, split=split)", "source")
    assert rows_of(named) == EXPECTED
    assert spec.parse(spec.format(named.resolved(), "source"), "source") == named.resolved() == source
    pattern = spec.parse(f"{kind}('set/*/metadata.{kind}', image=file_name, label=label)", "source")
    assert Counter(key for key, _, _ in rows_of(pattern)) == Counter(key for key, _, _ in EXPECTED)
    assert any("split=split keeps them apart" in note for note in pattern.notes())
    monkeypatch.chdir("/")
    assert rows_of(source.resolved()) == EXPECTED


def test_keys_are_those_of_the_same_folder_and_of_one_file(tmp_path: Path) -> None:
    for part in ("train", "test"):
        names = make(tmp_path / part, "cat/1.png", "dog/1.png")
        written(names / "metadata.csv", [("cat/1.png", "cat"), ("dog/1.png", "dog")])
    source = TableSource([f"{tmp_path}/{part}/metadata.csv" for part in ("train", "test")], *HEADER, split="split")
    assert rows_of(source) == [(row.key, row.labels, row.split) for row in FolderSource(tmp_path)]
    one = TableSource(tmp_path / "train" / "metadata.csv", *HEADER)
    assert one == TableSource([tmp_path / "train" / "metadata.csv"], *HEADER) and isinstance(one.path, str)
    assert [row.key for row in one] == ["cat/1.png", "dog/1.png"] and "split" not in one.columns
    of_pattern = TableSource(f"{tmp_path}/tr*/metadata.csv", *HEADER)
    assert [row.key for row in of_pattern] == ["train/cat/1.png", "train/dog/1.png"]  # as with further folders


def test_one_column_per_class_in_each_split(tmp_path: Path) -> None:
    """Roboflow's classification export."""
    for folder in SPLITS:
        make(tmp_path / folder, "1.png", "2.png")
        written(
            tmp_path / folder / "_classes.csv", [("1.png", "1", "0"), ("2.png", "1", "1")], ["filename", " cat", " dog"]
        )
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
    assert rows_of(advised) == [
        (f"{folder}/{name}.png", labels, split)
        for folder, split in SPLITS.items()
        for name, labels in (("1", ("cat",)), ("2", ("cat", "dog")))
    ]


def test_a_table_for_each_split_beside_one_folder_of_images(tmp_path: Path) -> None:
    """Kaggle's."""
    make(tmp_path / "images", *(f"{number}.png" for number in range(8)))
    for part, numbers in (("train", range(6)), ("val", range(6, 8))):
        written(tmp_path / f"{part}.csv", [(str(n), "ab"[n % 2]) for n in numbers], ["id", "label"])
    written(tmp_path / "test.csv", [("9",)], ["id"])
    expected = [(f"{n}.png", ("ab"[n % 2],), "train" if n < 6 else "val") for n in range(8)]
    tables = [tmp_path / "train.csv", tmp_path / "val.csv"]
    source = TableSource(tables, "id", "label", split="split", root=tmp_path / "images", suffix=".png")
    assert rows_of(source) == expected
    for given in (tmp_path, tmp_path / "images"):
        with pytest.raises(SourceError) as caught:
            FolderSource(given).classes  # noqa: B018
        advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
        assert rows_of(advised) == expected
    without = TableSource(tables, "id", "label")
    assert without.advice(next(iter(without))) == f"there is images/0.png: give root={tmp_path}/images, suffix=.png"


@pytest.mark.parametrize("path", ["img/{}.png", "../img/{}.png", "{root}/img/{}.png"])
def test_a_table_in_a_folder_for_each_split_beside_one_of_all_images(tmp_path: Path, path: str) -> None:
    make(tmp_path / "img", *(f"{number}.png" for number in range(8)))
    tables = [tmp_path / part / "labels.csv" for part in ("train", "test")]
    for number, table in enumerate(tables):
        table.parent.mkdir()
        rows = range(4 * number, 4 * number + 4)
        written(table, [(path.format(n, root=tmp_path), "ab"[n % 2]) for n in rows], ["image", "label"])
    without = TableSource(tables, "image", "label", split="split")
    assert str(without.advice(without[0])).endswith(f": give root={tmp_path}")
    for root in (tmp_path, [tmp_path, tmp_path / "img"]):
        source = TableSource(tables, "image", "label", split="split", root=root)
        assert [record.problem for record in source] == [None] * 8
        assert [record.split for record in source] == ["train"] * 4 + ["test"] * 4
        assert all(source.read(record) for record in source)
    (tmp_path / "img" / "7.png").rename(tmp_path / "test" / "7.png")
    written(tables[1], [("7.png", "a")], ["image", "label"])
    assert "give root" not in str(without.advice(without[0]))  # with which the other table finds nothing


def test_tables_whose_images_are_found_by_other_options_are_not_put_together(tmp_path: Path) -> None:
    for part, numbers in (("train", range(6)), ("test", range(6, 12))):
        make(tmp_path / f"{part}_images", *(f"{number}.png" for number in numbers))
        written(tmp_path / f"{part}.csv", [(f"{n}.png", "ab"[n % 2]) for n in numbers])
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
    assert rows_of(advised) == [(f"{n}.png", ("ab"[n % 2],), None) for n in range(6)]
    assert f"further tables: {tmp_path / 'test.csv'}" in str(caught.value)


def test_files_must_have_the_same_columns_in_any_order(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png")
    one = written(tmp_path / "1.csv", [("1.png", "a")])
    other = written(tmp_path / "2.csv", [("b", "2.png")], ["label", "file_name"])
    assert rows_of(TableSource([one, other], *HEADER)) == [("1.png", ("a",), None), ("2.png", ("b",), None)]
    for kinds in (["file_name", "kind"], ["file_name"]):
        written(other, [("2.png", "b")[: len(kinds)]], kinds)
        for order in ([one, other], [other, one]):
            with pytest.raises(SourceError, match=r"csv has no column '\w+', which .*csv has \(columns: ") as caught:
                TableSource(order, *HEADER).classes  # noqa: B018
            assert "\n" not in str(caught.value)
    assert f"{other} has no column 'label', which {one} has (columns: file_name)" in str(caught.value)


def test_objects_need_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png")
    one = written(tmp_path / "1.jsonl", [("1.png", "a", "x")], [*HEADER, "note"])
    other = written(tmp_path / "2.jsonl", [("2.png", "b")])
    assert len(rows_of(TableSource([one, other], *HEADER))) == 2
    with pytest.raises(SourceError, match=r"2.jsonl has no column 'note', which .*1.jsonl has"):
        TableSource([one, other], *HEADER, group="note").classes  # noqa: B018


def test_problems_name_the_file_and_the_line(tmp_path: Path) -> None:
    split_folders(tmp_path)
    with (tmp_path / "test" / "metadata.csv").open("a") as file:
        file.write("9.png,a\n0.png,b\n1.png,b,b\n../train/0.png,a\n/etc/passwd,b\n,a\n")
    source = TableSource(f"{tmp_path}/*/metadata.csv", *HEADER, split="split")
    told = {row.key: row.problem for row in source if row.problem is not None}
    clash = "test/metadata.csv, line 2 and test/metadata.csv, line 7 give it different labels; if it has all of them, "
    clash += "give merge=true"
    assert sorted(told.values()) == [
        "has 3 cells where the header has 2 (test/metadata.csv, line 8)",
        "leads out of the folder (test/metadata.csv, line 10)",
        "leads out of the folder (test/metadata.csv, line 9)",
        "no file is named (test/metadata.csv, line 11)",
        "no such file (test/metadata.csv, line 6)",
        f"{clash} (test/metadata.csv, line 2)",
        f"{clash} (test/metadata.csv, line 7)",
    ]
    records = list(source)
    assert len({row.key for row in records}) == len(records) == 12 + 6
    with (tmp_path / "valid" / "metadata.csv").open("w") as file:
        file.write("file_name,label,split\n0.png,a,train\n")
    for folder in ("train", "test"):
        written(tmp_path / folder / "metadata.csv", [("0.png", "a", "odd")], [*HEADER, "split"])
    with pytest.raises(SourceError, match=r"test/metadata.csv, line 2: 'split' is 'odd'"):
        list(source)


def test_each_file_names_images_below_its_own_folder_only(tmp_path: Path) -> None:
    """A table must not find what the folder of another one holds, also not by a link that is made later."""
    split_folders(tmp_path / "set")
    secret = make(tmp_path / "secret", "1.png") / "1.png"
    source = TableSource(f"{tmp_path}/set/*/metadata.csv", *HEADER)
    rows = list(source)
    (tmp_path / "set" / "train" / "0.png").unlink()
    (tmp_path / "set" / "train" / "0.png").symlink_to(secret)
    (first,) = [row for row in rows if row.key == "train/0.png"]
    with pytest.raises(ImageError, match="leads out"):
        source.read(first)
    assert next(row for row in source if row.key == "train/0.png").problem is not None
    wide = TableSource(
        [f"{tmp_path}/set/train/metadata.csv", written(tmp_path / "x.csv", [("secret/1.png", "a")])], *HEADER
    )
    assert {row.key for row in wide if row.problem is None} >= {"secret/1.png"}
    written(tmp_path / "set" / "train" / "metadata.csv", [("../../secret/1.png", "a")])
    assert next(row.problem for row in wide) == "leads out of the folder (set/train/metadata.csv, line 2)"


def test_a_missing_file_names_the_one_that_is_probably_meant(tmp_path: Path) -> None:
    split_folders(tmp_path)
    with (tmp_path / "test" / "metadata.csv").open("a") as file:
        file.write("0.jpg,a\n")
    source = TableSource(f"{tmp_path}/*/metadata.csv", *HEADER)
    (row,) = [row for row in source if row.problem]
    assert source.advice(row) == "there is 0.png"
    for folder in SPLITS:
        written(tmp_path / folder / "metadata.csv", [(str(n), "ab"[n % 2]) for n in range(4)])
    example = TableSource(f"{tmp_path}/*/metadata.csv").example
    assert "suffix=.png" in example
    assert {key for key, _, _ in rows_of(open_source(example))} == {key for key, _, _ in EXPECTED}


def test_images_that_no_table_names_are_told_by_an_audit(tmp_path: Path) -> None:
    tables = split_folders(tmp_path)
    make(tmp_path, "train/9.png", "elsewhere/1.png")
    source = TableSource(tables, *HEADER)
    assert [(found.file, found.detail) for found in unlisted_files(source, source)] == [
        ("train/9.png", "no row of metadata.csv names it")
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([], "must name a table"),
        (["{}/none.csv", "{}/train/metadata.csv"], "no such table: .*none.csv"),
        (["{}/train", "{}/train/metadata.csv"], "train is no regular file"),
        (["{}/x*.csv", "{}/train/metadata.csv"], r"x\*.csv: there is no csv file; name one$"),
        ("{}/*/none.csv", "there is no csv file"),
        ("{}/t*", "is no regular file"),
        (["s3://bucket/1.csv", "s3://bucket/2.csv"], "of tables in object storage give one file"),
    ],
)
def test_what_are_no_tables(tmp_path: Path, path: Any, message: str) -> None:
    split_folders(tmp_path)
    given = path.format(tmp_path) if isinstance(path, str) else [each.format(tmp_path) for each in path]
    with pytest.raises(SourceError, match=message):
        TableSource(given, *HEADER, format="csv")


def test_without_headers(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png", "3.png")
    for part, row in (("train", "1.png,a\n2.png,b\n"), ("test", "3.png,a\n")):
        (tmp_path / f"{part}.csv").write_text(row)
    source = spec.parse(f"csv('{tmp_path}/t*.csv', image=1, label=2, split=split, header=none)", "source")
    assert rows_of(source) == [("3.png", ("a",), "test"), ("1.png", ("a",), "train"), ("2.png", ("b",), "train")]


@pytest.mark.parametrize("empty", ["train", "test"])
def test_a_json_file_without_a_row_lacks_no_column(tmp_path: Path, empty: str) -> None:
    make(tmp_path, "1.png")
    for part in ("train", "test"):
        rows = [] if part == empty else [{"image": "1.png", "label": "cat"}]
        (tmp_path / f"{part}.json").write_text(json.dumps(rows))
    source = TableSource([tmp_path / "train.json", tmp_path / "test.json"], "image", "label")
    assert rows_of(source) == [("1.png", ("cat",), None)]
    (tmp_path / f"{empty}.json").write_text('[{"picture": "1.png"}]')
    with pytest.raises(SourceError, match=f"{empty}.json has no column 'image'"):
        TableSource(source.path, "image", "label").classes  # noqa: B018
