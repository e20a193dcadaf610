"""Tables in the shapes that people have: each is read as it is meant, or refused with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

import visionadapt as va
from visionadapt.core.records import Source
from visionadapt.data.split_report import SplitReport
from visionadapt.errors import ImageError, SourceError, VisionAdaptError
from visionadapt.sources import MemorySource, TableSource
from visionadapt.sources.opening import open_source

from .test_folder import make

CATS = tuple(f"cat_{number}" for number in range(3))
DOGS = tuple(f"dog_{number}" for number in range(3))
NAMES = (*CATS, *DOGS)
LABELS = ("cat",) * 3 + ("dog",) * 3
MEANT = dict(zip(NAMES, ((label,) for label in LABELS), strict=True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images/cat_0.jpg and others; it is the working folder."""
    make(tmp_path / "set", *(f"images/{name}.jpg" for name in NAMES), "labels/readme.txt")
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


def lines(row: Callable[[str, str], str], header: str = "", end: str = "\n") -> str:
    return header + "".join(f"{row(name, label)}{end}" for name, label in zip(NAMES, LABELS, strict=True))


def usable(source: Source) -> dict[str, tuple[str, ...]]:
    """The labels of all usable rows by the name of their file; each can be read."""
    rows = [record for record in source if record.problem is None]
    assert all(source.read(record) == f"images/{Path(record.key).name}".encode() for record in rows)
    return {Path(record.key).stem: record.labels for record in rows}


def unreadable(text: str) -> str:
    """What is said where rows cannot be split, in one line."""
    with pytest.raises(VisionAdaptError) as caught:
        va.split(text)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


PLAIN = lines(lambda name, label: f"images/{name}.jpg,{label}", "file,label\n")
ONE_HOT = lines(lambda name, label: f"images/{name}.jpg,{label == 'cat':d},{label == 'dog':d}", "file,cat,dog\n")
ROBOFLOW = lines(lambda name, label: f"{name}.jpg, {label == 'cat':d}, {label == 'dog':d}", "filename, cat, dog\n")
FASTAI = lines(lambda name, label: f"images/{name}.jpg,{label},{name.endswith('2')}", "file,label,is_valid\n")


@pytest.mark.parametrize(
    ("name", "content", "data"),
    [
        ("plain.csv", PLAIN, "csv(plain.csv, image=file, label=label)"),
        ("semicolon.csv", PLAIN.replace(",", ";"), "csv(semicolon.csv, image=file, label=label)"),
        ("excel.csv", "sep=;\r\n" + PLAIN.replace(",", ";"), "csv(excel.csv, image=file, label=label)"),
        ("tab.csv", PLAIN.replace(",", "\t"), "csv(tab.csv, image=file, label=label)"),
        ("comma.tsv", PLAIN, "tsv(comma.tsv, image=file, label=label)"),
        ("bom.csv", "\ufeff" + PLAIN, "csv(bom.csv, image=file, label=label)"),
        ("utf16.csv", PLAIN.replace(",", "\t").encode("utf-16"), "csv(utf16.csv, image=file, label=label)"),
        ("utf16le.csv", PLAIN.encode("utf-16-le"), "csv(utf16le.csv, image=file, label=label)"),
        ("q.csv", PLAIN.replace("images", '"images').replace("jpg", 'jpg"'), "csv(q.csv, image=file, label=label)"),
        ("blank.csv", "\n \n" + PLAIN.replace("\n", "\r\n\r\n  \r\n"), "csv(blank.csv, image=file, label=label)"),
        ("spaces.csv", PLAIN.replace(",", " , ").replace("\n", " \n"), "csv(spaces.csv, image=file, label=label)"),
        ("windows.csv", PLAIN.replace("/", "\\"), "csv(windows.csv, image=file, label=label)"),
        ("root.csv", PLAIN.replace("images/", ""), "csv(root.csv, image=file, label=label, root=images)"),
        ("labels/up.csv", PLAIN.replace("images", "../images"), "csv(labels/up.csv, image=file, label=label, root=.)"),
        (
            "pandas.csv",
            lines(lambda name, label: f"{len(name)},images/{name}.jpg,{label}", ",file,label\n"),
            "csv(pandas.csv, image=file, label=label)",
        ),
        (
            "kaggle.csv",
            lines(lambda name, label: f"{name},{label}", "id,breed\n"),
            "csv(kaggle.csv, image=id, label=breed, root=images, suffix=.jpg)",
        ),
        (
            "ham.csv",
            lines(lambda name, label: f"HAM_1,{name},{label},histo,50.0", "lesion_id,image_id,dx,dx_type,age\n"),
            "csv(ham.csv, image=image_id, label=dx, root=images, suffix=.jpg)",
        ),
        ("header.csv", PLAIN.partition("\n")[2], "csv(header.csv, image=1, label=2, header=none)"),
        ("twice.csv", PLAIN + PLAIN.partition("\n")[0], "csv(twice.csv, image=file, label=label)"),
        ("onehot.csv", ONE_HOT, "csv(onehot.csv, image=file, label=[cat, dog])"),
        ("_classes.csv", ROBOFLOW, "csv(_classes.csv, image=filename, label=[cat, dog], root=images)"),
        (
            "metadata.jsonl",
            lines(lambda name, label: json.dumps({"file_name": f"images/{name}.jpg", "label": label})),
            "jsonl(metadata.jsonl, image=file_name, label=label)",
        ),
        (
            "lines.json",
            lines(lambda name, label: json.dumps({"file": f"images/{name}.jpg", "label": label})),
            "json(lines.json, image=file, label=label)",
        ),
        (
            "array.json",
            json.dumps([{"data": {"image": f"images/{n}.jpg"}, "label": n[:3]} for n in NAMES]),
            "json(array.json, image=data.image, label=label)",
        ),
        (
            "array.jsonl",
            json.dumps([{"f": f"images/{n}.jpg", "l": k} for n, k in zip(NAMES, LABELS, strict=True)], indent=2),
            "jsonl(array.jsonl, image=f, label=l)",
        ),
        (
            "label_studio.json",
            json.dumps(
                [
                    {"data": {"image": f"images/{n}.jpg"}, "annotations": [{"result": [{"value": {"choices": [k]}}]}]}
                    for n, k in zip(NAMES, LABELS, strict=True)
                ]
            ),
            "json(label_studio.json, image=data.image, label=annotations.0.result.0.value.choices)",
        ),
    ],
)  # fmt: skip
def test_it_is_read_as_it_is_meant(folder: Path, name: str, content: str | bytes, data: str) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_source(data)
    assert usable(source) == MEANT
    assert source.classes == ("cat", "dog")
    train, val = va.split(source)
    assert train.class_counts() == (2, 2) and val.class_counts() == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "data", "told"),
    [
        ("plain.csv", PLAIN, "plain.csv", ["csv(plain.csv, image=file, label=label)"]),
        ("plain.csv", PLAIN, "csv(plain.csv)", ["image=", "csv(plain.csv, image=file, label=label)"]),
        ("plain.csv", PLAIN, "csv(plain.csv, image=file)", ["no labels", "label=label)"]),
        ("case.csv", PLAIN.replace("file", "File_Name"), "csv(case.csv, image=file_name, label=lable)",
         ["'file_name'", "'File_Name'", "csv(case.csv, image=File_Name, label=label)"]),
        ("case.csv", PLAIN.replace("file,label", "filename,class"), "csv(case.csv, image=image, label=label)",
         ["csv(case.csv, image=filename, label=class)"]),
        ("onehot.csv", ONE_HOT, "onehot.csv", ["csv(onehot.csv, image=file, label=[cat, dog])"]),
        ("onehot.csv", ONE_HOT, "csv(onehot.csv, image=file, label=label)", ["'label'", "label=[cat, dog]"]),
        ("onehot.csv", ONE_HOT, "csv(onehot.csv, image=file)", ["no labels", "label=[cat, dog]"]),
        ("is_valid.csv", FASTAI, "is_valid.csv", ["csv(is_valid.csv, image=file, label=label, split=is_valid)"]),
        ("header.csv", PLAIN.partition("\n")[2], "csv(header.csv, image=file, label=label)",
         ["'file'", "csv(header.csv, image='1', label='2', header=False)"]),
        ("text.csv", PLAIN, "csv(text.csv, image=file, label=[label])", ["6 × 'label' holds 'cat'", "neither 0 nor 1"]),
        ("pipe.csv", PLAIN.replace("cat\n", "cat|pet\n"), "csv(pipe.csv, image=file, label=label)",
         ["line 2", "'cat|pet'", "separator='|'", "labels={'cat|pet'"]),
        ("list.csv", PLAIN.replace(",cat\n", ",\"['cat', 'pet']\"\n"), "csv(list.csv, image=file, label=label)",
         ["line 2", "separator=','"]),
        ("json.csv", PLAIN.replace(",cat\n", ',"[""cat"", ""pet""]"\n'), "csv(json.csv, image=file, label=label)",
         ["line 2", "separator=','"]),
        ("mixed.csv", PLAIN.replace("cat\n", "cat;pet\n", 2).replace("dog\n", "pet\n", 1),
         "csv(mixed.csv, image=file, label=label)", ["separator=';'"]),
        ("long.csv", PLAIN + PLAIN.partition("\n")[2].replace("cat\n", "pet\n").replace("dog\n", "pet\n"),
         "csv(long.csv, image=file, label=label)", ["line 2 and line 8", "merge=true"]),
        ("via.csv", PLAIN.replace(",cat\n", ',"{""class"": ""cat""}"\n'), "csv(via.csv, image=file, label=label)",
         ["line 2", "object"]),
        ("automl.csv", lines(lambda name, label: f"TRAIN,gs://bucket/{name}.jpg,{label}"), "automl.csv",
         ["csv(automl.csv, image='2', label='3', split='1', header=False)"]),
        ("automl.csv", lines(lambda name, label: f"TRAIN,gs://bucket/{name}.jpg,{label}"),
         "csv(automl.csv, image=2, label=3, header=none)", ["is a URL", "download"]),
        ("coco.json", json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}), "coco.json", ["COCO"]),
        ("coco.json", json.dumps({"images": [{"id": 1}], "annotations": []}, indent=1),
         "json(coco.json, image=file_name, label=category_id)", ["COCO"]),
        ("frame.json", json.dumps({"file": {"0": "a"}, "label": {"0": "b"}}), "frame.json", ['orient="records"']),
        ("rows.json", json.dumps({"rows": [{"file": "a"}]}), "rows.json", ["'rows'"]),
        ("broken.json", '[{"file": "a"}, {"file"', "broken.json", ["broken.json", "no list of JSON"]),
        ("dicts.jsonl", "{'file': 'a.jpg'}\n", "jsonl(dicts.jsonl, image=file)", ["dicts.jsonl, line 1 is no JSON"]),
        ("pretty.jsonl", '{\n "file": "a.jpg"\n}\n', "pretty.jsonl", ["pretty.jsonl, line 1 is no JSON"]),
        ("two.json", "[{}][{}]", "two.json", ["follows"]),
        ("sheet.xlsx", b"PK\x03\x04", "sheet.xlsx", ["CSV"]),
        ("sheet.xlsx", b"PK\x03\x04", "csv(sheet.xlsx, image=file, label=label)", ["CSV"]),
        ("sheet.csv", b"PK\x03\x04", "csv(sheet.csv, image=file, label=label)", ["zip", "CSV"]),
        ("old.csv", b"\xd0\xcf\x11\xe0", "csv(old.csv, image=file, label=label)", ["Excel", "CSV"]),
        ("packed.csv.gz", b"\x1f\x8b\x08", "packed.csv.gz", ["gzip"]),
        ("page.csv", b"<!DOCTYPE html>", "csv(page.csv, image=file, label=label)", ["HTML"]),
        ("lfs.parquet", b"version https://git-lfs.github.com/spec/v1\n", "lfs.parquet", ["git lfs pull"]),
        ("json.csv", b'[{"file": "a.jpg"}]', "csv(json.csv, image=file, label=label)", ["json("]),
        ("latin.csv", "file,label\na.jpg,d\xf6g\n".encode("latin-1"), "csv(latin.csv, image=file, label=label)",
         ["line 2", "UTF-8"]),
        ("fold.csv", PLAIN.replace(",cat", ",cat,0"), "csv(fold.csv, image=file, label=label)",
         ["3 × has 3 cells", "(such as fold.csv, line 2)"]),
        ("cells.csv", PLAIN.replace("cat\n", "cat,\n").replace("dog\n", "dog,\n"),
         "csv(cells.csv, image=file, label=label)", ["6 × has 3 cells where the header has 2"]),
        ("twice.csv", PLAIN.replace("file,label", "label,label"), "csv(twice.csv, image=file, label=label)",
         ["'file'", "(columns: label"]),
        ("set.csv", FASTAI.replace("is_valid", "is_train"), "csv(set.csv, image=file, label=label, split=is_train)",
         ["line 2", "'is_train'", "is_valid"]),
        ("set.csv", FASTAI.replace("is_valid", "fold"), "csv(set.csv, image=file, label=label, split=fold)",
         ["line 2", "'fold'", "is_valid"]),
        ("x.csv", PLAIN, "csv(x.csv, image=file, label=label, header=maybe)", ["header='maybe'"]),
        ("x.jsonl", "{}", "jsonl(x.jsonl, image=file, label=label, header=none)", ["header="]),
        ("x.csv", PLAIN, "csv(x.csv, image=file, label=[])", ["label="]),
    ],
)  # fmt: skip
def test_it_is_refused_with_the_remedy(
    folder: Path, name: str, content: str | bytes, data: str, told: list[str]
) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = unreadable(data)
    assert [part for part in told if part not in message] == [], message


@pytest.mark.parametrize(
    ("name", "content", "options", "told"),
    [
        ("a.csv", PLAIN.replace(".jpg", ""), "", ["images/cat_0.jpg: give suffix=.jpg"]),
        ("a.csv", PLAIN.replace("images/", ""), "", ["there is images/cat_0.jpg: give root=images"]),
        ("a.csv", PLAIN.replace("images/", "").replace(".jpg", ""), "", ["give root=images, suffix=.jpg"]),
        ("a.csv", PLAIN.replace("images/cat", "images/CAT"), "", ["there is images/cat_0.jpg"]),
        ("a.csv", PLAIN.replace(".jpg", ".png"), "", ["there is images/cat_0.jpg"]),
        ("a.csv", PLAIN.replace("images/", "cat/"), "", ["there is images/cat_0.jpg"]),
        ("a.csv", PLAIN.replace("images/", "/elsewhere/images/"), "", ["there is images/cat_0.jpg", "from there on"]),
        ("a.csv", PLAIN.replace("images/", "D:\\set\\images\\"), "", ["there is images/cat_", "from there on"]),
        ("labels/a.csv", PLAIN.replace("images/", ""), "", ["images/cat_0.jpg: give root=", "images"]),
        ("labels/a.csv", PLAIN, "", ["images/cat_0.jpg: give root="]),
        ("labels/a.csv", PLAIN.replace("images/", "../images/"), "", ["only files below labels", "give root="]),
        ("labels/a.csv", PLAIN, ", root=labels, suffix=.png", ["no such file"]),
    ],
)
def test_a_file_that_is_not_there_names_the_one_that_is_probably_meant(
    folder: Path, name: str, content: str, options: str, told: list[str]
) -> None:
    (folder / name).write_text(content)
    message = unreadable(f"csv({name}, image=file, label=label{options})")
    assert "no usable image" in message
    assert [part for part in told if part not in message] == [], message


def test_no_file_outside_of_the_folder_is_named_for_a_path_that_leads_out(folder: Path) -> None:
    make(folder.parent, "secret.jpg")
    (folder / "a.csv").write_text("file,label\n../secret.jpg,x\n/etc/passwd,y\n")
    source = TableSource("a.csv", "file", "label")
    first, second = source
    assert (source.advice(first) or "").endswith(f"give root={folder.parent}")
    assert source.advice(second) is None
    for record in (first, second):
        with pytest.raises(ImageError):
            source.read(record)


def test_a_split_column_of_true_and_false(folder: Path) -> None:
    for column, part in (("is_valid", "val"), ("is_test", "test"), ("IsVal", "val"), ("valid", "val")):
        for true, false in (("True", "False"), ("1", "0"), ("1.0", "0.0"), ("yes", "no")):
            content = FASTAI.replace("is_valid", column).replace("True", true).replace("False", false)
            (folder / "a.csv").write_text(content)
            found = {Path(r.key).stem: r.split for r in TableSource("a.csv", "file", "label", split=column)}
            assert found == {name: part if name.endswith("2") else "train" for name in NAMES}


def test_several_marks_are_several_labels_and_other_cells_reject_the_row(folder: Path) -> None:
    rows = ("1.0,,1", "0,True,-1.0", "no,yes,", "0,0,0", "1,0.5,0", "x,1,0")
    content = "".join(f"images/{name}.jpg,{row}\n" for name, row in zip(NAMES, rows, strict=True))
    (folder / "a.csv").write_text(f"Path,Edema,Cardiomegaly,Pleural Other\n{content}")
    source = open_source(
        "csv(a.csv, image=Path, label=[Edema, Cardiomegaly, Pleural Other], labels={Pleural Other: other})"
    )
    assert source.classes == ("Cardiomegaly", "Edema", "other")
    found = {Path(record.key).stem: record.labels if record.problem is None else record.problem for record in source}
    assert found == {
        "cat_0": ("Edema", "other"),
        "cat_1": "'Pleural Other' holds '-1.0', neither 0 nor 1 (line 3)",
        "cat_2": ("Cardiomegaly",),
        "dog_0": (),
        "dog_1": "'Cardiomegaly' holds '0.5', neither 0 nor 1 (line 6)",
        "dog_2": "'Edema' holds 'x', neither 0 nor 1 (line 7)",
    }


def test_a_class_whose_column_has_no_1_is_not_forgotten(folder: Path) -> None:
    (folder / "a.csv").write_text(ONE_HOT.replace("\n", ",0\n").replace("dog,0", "dog,bird"))
    assert "'bird'" in unreadable("csv(a.csv, image=file, label=[cat, dog, bird])")


def test_rows_of_one_file_are_one_image_with_all_their_labels_on_request(folder: Path) -> None:
    content = lines(lambda name, label: f"images/{name}.jpg,{label},a\n./images/{name}.jpg,pet,a", "file,label,who\n")
    (folder / "a.csv").write_text(content)
    source = TableSource("a.csv", "file", "label", group="who", merge=True)
    assert usable(source) == {name: (*labels, "pet") for name, labels in MEANT.items()}
    assert len(source) == len(list(source)) == 6
    assert source.classes == ("cat", "dog", "pet")
    dropping = TableSource("a.csv", "file", "label", merge=True, drop=["pet"])
    assert usable(dropping) == MEANT and len(dropping) == len(list(dropping)) == 12
    (folder / "a.csv").write_text(content.replace("images/cat_0.jpg,pet,a", "images/cat_0.jpg,pet,b"))
    again = TableSource("a.csv", "file", "label", group="who", merge=True)
    told = {record.key: record.problem for record in again if record.problem is not None}
    assert told == {
        "images/cat_0.jpg": "line 2 and line 3 give it different groups or splits (line 2)",
        "images/cat_0.jpg#2": "line 2 and line 3 give it different groups or splits (line 3)",
    }


def test_lists_in_cells_are_several_labels_on_request(folder: Path) -> None:
    cells = ("\"['cat', 'pet']\"", '"[""cat"", ""pet""]"', "[cat]", '"cat,pet"', '"[""a,b"", ""c""]"', "[]")
    content = "".join(f"images/{name}.jpg,{cell}\n" for name, cell in zip(NAMES, cells, strict=True))
    (folder / "a.csv").write_text(f"file,label\n{content}")
    found = usable(TableSource("a.csv", "file", "label", separator=","))
    assert list(found.values()) == [("cat", "pet"), ("cat", "pet"), ("cat",), ("cat", "pet"), ("a,b", "c"), ()]


@pytest.mark.parametrize("name", ["tench, Tinca tinca", "rock (music), pop", "50/50", "[unknown]", "a;b", "{x}"])
def test_names_with_commas_and_brackets_are_names(folder: Path, name: str) -> None:
    (folder / "a.csv").write_text(PLAIN.replace(",cat\n", f',"{name}"\n'))
    assert TableSource("a.csv", "file", "label").classes == tuple(sorted((name, "dog")))


def test_names_that_share_parts_are_noted(folder: Path) -> None:
    (folder / "a.csv").write_text(PLAIN.replace(",cat\n", ',"cat, pet"\n').replace(",dog\n", ',"dog, pet"\n'))
    source = TableSource("a.csv", "file", "label")
    (note,) = source.notes()
    assert "'cat, pet'" in note and "separator=','" in note
    assert note in str(SplitReport.of(*va.split(source)))
    assert TableSource("a.csv", "file", "label", separator=",").notes() == ()
    assert TableSource("a.csv", "file", "label", labels={"cat, pet": "x", "dog, pet": "y"}).notes() == ()


def test_a_class_that_means_no_label_is_noted(folder: Path) -> None:
    (folder / "a.csv").write_text(PLAIN.replace("cat\n", "NaN\n", 1))
    source = TableSource("a.csv", "file", "label")
    assert source.classes == ("cat", "dog", "NaN")
    (note,) = source.notes()
    assert "'NaN'" in note and "drop=[NaN]" in note
    assert TableSource("a.csv", "file", "label", drop=["NaN"]).notes() == ()


def test_the_settings_that_are_proposed_find_the_files(folder: Path) -> None:
    for name, content in {
        "a.csv": PLAIN,
        "b.csv": PLAIN.replace("images/", "").replace(".jpg", ""),
        "labels/c.csv": PLAIN.replace("images/", "../images/").replace(".jpg", ""),
        "labels/d.csv": PLAIN.replace("images/", ""),
        "labels/e.csv": PLAIN.partition("\n")[2].replace("images", "../images"),
        "labels/f.csv": ONE_HOT.replace("images", "../images"),
        "g.json": json.dumps([{"data": {"image": f"{n}.jpg"}, "kind": n[:3]} for n in NAMES]),
    }.items():
        (folder / name).write_text(content)
        assert usable(open_source(TableSource(name).example)) == MEANT
    (folder / "images" / "h.csv").write_text(PLAIN.replace("images/", "").replace(".jpg", ""))
    for path in (Path("images/h.csv"), folder / "images" / "h.csv"):
        assert usable(open_source(TableSource(path).example)) == MEANT


def test_numbers_that_have_lost_their_zeros_name_the_file(folder: Path) -> None:
    make(folder, "images/000012.jpg")
    (folder / "a.csv").write_text("id,label\n12.0,x\n")
    source = TableSource("a.csv", "id", "label")
    assert source.advice(next(iter(source))) == "there is images/000012.jpg"


def test_a_label_that_the_user_names_is_one_label(folder: Path) -> None:
    (folder / "a.csv").write_text(PLAIN.replace("cat\n", "cat|pet\n"))
    assert TableSource("a.csv", "file", "label", labels={"cat|pet": "cat|pet"}).classes == ("cat|pet", "dog")


def hub(rows: list[str]) -> pa.Table:
    images = [{"bytes": f"images/{name}.jpg".encode(), "path": f"{name}.jpg"} for name in rows]
    return pa.table({"image": images, "label": [MEANT[name][0] for name in rows]})


def plain_bytes(rows: list[str]) -> pa.Table:
    return pa.table({"image": [f"images/{name}.jpg".encode() for name in rows], "label": [MEANT[n][0] for n in rows]})


def write_parquet(table: pa.Table, path: Path) -> str:
    parquet.write_table(table, path, row_group_size=2)
    return "parquet"


def write_feather(table: pa.Table, path: Path) -> str:
    feather.write_feather(table, path, chunksize=2)
    return "arrow"


def write_stream(table: pa.Table, path: Path) -> str:
    with ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return "arrow"


@pytest.mark.parametrize("write", [write_parquet, write_feather, write_stream])
@pytest.mark.parametrize("table", [hub, plain_bytes])
def test_images_that_a_file_holds_are_read_in_any_order(
    folder: Path, table: Callable[[list[str]], pa.Table], write: Callable[[pa.Table, Path], str]
) -> None:
    kind = write(table(list(NAMES)), folder / "t")
    source = open_source(f"{kind}(t, image=image, label=label)")
    rows = list(source)
    assert [record.labels for record in rows] == list(MEANT.values())
    assert len({record.key for record in rows}) == 6
    for order in (range(6), range(5, -1, -1), (3, 0, 5, 5, 1)):
        assert [source.read(rows[row]) for row in order] == [f"images/{NAMES[row]}.jpg".encode() for row in order]
    assert [Path(record.key).name for record in rows] == [
        f"{name}.jpg" if table is hub else f"row {number}" for number, name in enumerate(NAMES, 1)
    ]
    with pytest.raises(ImageError, match="max_bytes=5"):
        open_source(f"{kind}(t, image=image, label=label, max_bytes=5)").read(rows[0])  # type: ignore[attr-defined]


def test_rows_without_bytes_are_rejected_when_they_are_read(folder: Path) -> None:
    parquet.write_table(pa.table({"image": [None, b"x", b""], "label": ["a", "b", "a"]}), "t.parquet")
    source = TableSource("t.parquet", "image", "label")
    empty, good, blank = source
    assert source.read(good) == b"x"
    for record in (empty, blank):
        with pytest.raises(ImageError, match="holds no bytes"):
            source.read(record)


def test_paths_in_a_structure(folder: Path) -> None:
    table = pa.table({"data": [{"image": f"images/{name}.jpg", "n": 1} for name in NAMES], "label": list(LABELS)})
    for write in (write_parquet, write_feather):
        kind = write(table, folder / "t")
        assert usable(open_source(f"{kind}(t, image=data.image, label=label)")) == MEANT
    assert (
        "parquet(t.parquet, image=data.image, label=label)"
        in [
            parquet.write_table(table, "t.parquet"),
            unreadable("t.parquet"),
        ][1]
    )


def test_images_that_a_table_in_memory_holds(folder: Path) -> None:
    names = list(NAMES)
    frames: list[Any] = [hub(names), plain_bytes(names)]
    frames += [pytest.importorskip("pandas").DataFrame(table.to_pydict()) for table in frames]
    for frame in frames:
        source = MemorySource(frame, "image", "label")
        assert [source.read(record) for record in source] == [f"images/{name}.jpg".encode() for name in NAMES]
        assert source.classes == ("cat", "dog")


def test_marks_in_a_frame_name_the_argument(folder: Path) -> None:
    frame = pa.table(
        {"image": [f"images/{n}.jpg" for n in NAMES], "cat": [1, 1, 1, 0, 0, 0], "dog": [0, 0, 0, 1, 1, 1]}
    )
    with pytest.raises(VisionAdaptError, match=r"MemorySource\(table, image='image', label=\['cat', 'dog'\]\)"):
        va.split(frame)
    assert usable(MemorySource(frame, label=["cat", "dog"])) == MEANT


def test_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "a.csv").write_text(PLAIN.replace("images", "~/images") + "~/../secret.jpg,cat\n")
    source = open_source("csv(~/a.csv, image=file, label=label, root=~/)")
    assert usable(source) == MEANT
    assert [record.problem for record in source][-1] == "leads out of the folder (line 8)"
    assert (
        len(usable(MemorySource([(f"~/images/{n}.jpg", k) for n, k in zip(NAMES, LABELS, strict=True)], label="label")))
        == 6
    )
    assert "csv(" in unreadable("~/a.csv")


@pytest.mark.slow
def test_a_json_list_is_read_in_pieces(folder: Path) -> None:
    rows = [{"file": f"{number}.jpg", "label": "é" * (number % 50), "n": number} for number in range(5_000)]
    for content in (json.dumps(rows), json.dumps(rows, indent=3, ensure_ascii=False), " \n [\n" + json.dumps(rows)[1:]):
        (folder / "t.json").write_text(content, encoding="utf-8")
        found = [(record.key, record.columns["n"]) for record in TableSource("t.json", "file")]
        assert found == [(row["file"], str(row["n"])) for row in rows]


def featured(table: pa.Table, **features: Any) -> pa.Table:
    """A table with the metadata of the `datasets` library: {"info": {"features": …}} under `huggingface`."""
    told = json.dumps({"info": {"features": {"image": {"_type": "Image"}, **features}}})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"huggingface": told.encode()})


def test_names_of_classes_in_the_metadata_of_the_hub(folder: Path) -> None:
    numbers = pa.table({"image": [f"images/{name}.jpg" for name in NAMES], "label": [0, 0, 0, 1, 1, -1]})
    table = featured(numbers, label={"names": ["cat", "dog"], "_type": "ClassLabel"})
    expected = {**MEANT, NAMES[-1]: ()}
    for write in (write_parquet, write_feather):
        kind = write(table, folder / "t")
        source = open_source(f"{kind}(t, image=image, label=label)")
        assert usable(source) == expected and source.classes == ("cat", "dog")
        assert open_source(f"{kind}(t, image=image, label=label, drop=[1, -1])").classes == ("0",)
        renamed = open_source(f"{kind}(t, image=image, label=label, labels={{'0': feline, '1': canine, '-1': canine}})")
        assert renamed.classes == ("canine", "feline")
    assert usable(MemorySource(table, label="label")) == expected


@pytest.mark.parametrize(
    "inner",
    [
        {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"},
        [{"names": ["cat", "dog"], "_type": "ClassLabel"}],
    ],
)
def test_names_of_several_classes_in_the_metadata_of_the_hub(folder: Path, inner: Any) -> None:
    lists = pa.table({"image": [f"images/{name}.jpg" for name in NAMES], "label": [[0]] * 3 + [[0, 1]] * 3})
    found = usable(MemorySource(featured(lists, label=inner), label="label"))
    assert set(found.values()) == {("cat",), ("cat", "dog")}


@pytest.mark.parametrize(
    "told",
    [
        b"{",
        b"[]",
        b'{"info": 1}',
        b"\xff",
        b'{"info": {"features": {"label": {"names": 3, "_type": "ClassLabel"}}}}',
        b"[" * 100_000,
    ],
)
def test_damaged_metadata_leaves_the_numbers(folder: Path, told: bytes) -> None:
    numbers = pa.table({"image": [f"images/{name}.jpg" for name in NAMES], "label": [0, 0, 0, 1, 1, 7]})
    assert MemorySource(numbers.replace_schema_metadata({b"huggingface": told}), label="label").classes == (
        "0",
        "1",
        "7",
    )


def test_minus_one_for_no_in_every_column_is_refused(tmp_path: Path) -> None:
    """Rows of every class alone would be left; CheXpert's -1, unsure, stands beside 0 or nothing."""
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"image")
    (tmp_path / "t.csv").write_text("file,smiling,young\na.png,1,1\nb.png,-1,1\nc.png,-1,-1\n")
    with pytest.raises(SourceError, match="-1"):
        TableSource(tmp_path / "t.csv", image="file", label=("smiling", "young")).classes  # noqa: B018
    (tmp_path / "t.csv").write_text("file,smiling,young\na.png,1,1\nb.png,-1,1\nc.png,,1\n")
    rows = list(TableSource(tmp_path / "t.csv", image="file", label=("smiling", "young")))
    assert ["neither" in (row.problem or "") for row in rows] == [False, True, False]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ("images/{name}.jpg {number}", "{number}"),
        ("images/{name}.jpg\t{kind}\t0\t32\t44\t62", "{kind}"),
        ("{index},images/{name}.jpg,{kind}", "{kind}"),
        ("{index} images/{name}.jpg {kind}", "{kind}"),
    ],
)
def test_a_list_in_a_text_file_is_answered_with_its_settings(folder: Path, row: str, label: str) -> None:
    """As ImageNet's val.txt and Tiny-ImageNet's val_annotations.txt; a column that numbers the rows is no label."""
    make(folder, *(f"images/{kind}_{number}.jpg" for kind in ("cat", "dog") for number in range(3, 9)))
    kinds = [("cat", number) for number in range(9)] + [("dog", number) for number in range(9)]
    cells = [
        {"name": f"{kind}_{number}", "number": len(kind + str(number)) % 2 + (kind == "dog"), "kind": kind, "index": i}
        for i, (kind, number) in enumerate(kinds)
    ]
    (folder / "list.txt").write_text("\n".join(row.format(**each) for each in cells))
    message = unreadable("list.txt")
    found = {
        Path(each.key).stem: each.label for each in open_source(message.partition('--data "')[2].partition('"')[0])
    }
    assert found == {each["name"]: label.format(**each) for each in cells}


def test_a_list_without_labels_is_no_table_of_labels(folder: Path) -> None:
    """CUB's images.txt."""
    (folder / "images.txt").write_text("".join(f"{number} cat/{number}.jpg\n" for number in range(12)))
    message = unreadable("images.txt")
    assert "class folders" in message and "csv(" not in message


def test_a_column_that_numbers_the_rows_is_advised_for_no_labels(folder: Path) -> None:
    """CUB's images.txt as a table: the class is in no column."""
    rows = "".join(f"{number},images/{NAMES[number % 6]}.jpg\n" for number in range(12))
    for header in ("", "number,file\n"):
        (folder / "a.csv").write_text(header + rows)
        assert "label=…" in TableSource("a.csv").example


def test_a_column_of_images_is_found_by_its_cells(folder: Path) -> None:
    """As APTOS has it, whatever the column is called; and the label of Label Studio's export."""
    rows = "".join(f"{number},{name},{label}\n" for number, (name, label) in enumerate(zip(NAMES, LABELS, strict=True)))
    (folder / "a.csv").write_text(f"row,id_code,choice\n{rows}")
    assert TableSource("a.csv").example == "csv(a.csv, image=id_code, label=choice, root=images, suffix=.jpg)"
