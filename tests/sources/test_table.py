"""`TableSource`: the same rows from every format, and faults in a table reported with their line."""

from __future__ import annotations

import csv
import json
import pickle
import re
import tempfile
import tracemalloc
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from visionadapt.core import spec
from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources import FolderSource, TableSource

from .test_folder import make

Rows = Sequence[dict[str, Any]]
FORMATS = ("csv", "tsv", "jsonl", "parquet")
ROWS = (
    {"file": "a/1.jpg", "label": "T-Shirt", "sender": 7, "where": "line\nbreak, and 'quote\""},
    {"file": "a/2.jpg", "label": "Hat", "sender": 7, "where": None},
    {"file": "b/é.jpg", "label": "Not sure", "sender": 8, "where": "=1+1"},
    {"file": "b/none.jpg", "label": "Hat", "sender": None, "where": "x"},
    {"file": "b/3.jpg", "label": None, "sender": 9, "where": "x"},
)


def write(path: Path, rows: Rows, kind: str) -> Path:
    """Write a table as the standard library and pyarrow do."""
    path = path / f"labels.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def text(root: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / name


def problems(source: TableSource) -> dict[str, str]:
    return {record.key: record.problem for record in source if record.problem is not None}


def good(source: TableSource) -> list[tuple[str, tuple[str, ...]]]:
    """Return key and labels of the usable rows, all of which can be read."""
    found = [record for record in source if record.problem is None]
    for record in found:
        assert source.read(record)
    return [(record.key, record.labels) for record in found]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/é.jpg", "b/3.jpg")
    path = write(tmp_path, ROWS, kind)
    source = TableSource(
        path, "file", "label", labels={"T-Shirt": "t-shirt", "Hat": "hat"}, drop=["Not sure"], group="sender"
    )
    assert source.classes == ("hat", "t-shirt")
    places = [f"row {n}" for n in range(1, 6)] if kind == "parquet" else [f"line {n}" for n in (2, 4, 5, 6, 7)]
    if kind == "jsonl":
        places = [f"line {n}" for n in range(1, 6)]
    where = {"where": "line\nbreak, and 'quote\""}
    senders = ("7", "7", "8", None, "9")
    if kind == "parquet":
        assert parquet.read_schema(path).field("sender").type == pa.int64()
    assert list(source) == [
        Record("a/1.jpg", ("t-shirt",), senders[0], columns=where),
        Record("a/2.jpg", ("hat",), senders[1]),
        Record(
            "b/é.jpg",
            (),
            senders[2],
            problem=f"dropped: its label is 'Not sure' ({places[2]})",
            columns={"where": "=1+1"},
        ),
        Record("b/none.jpg", ("hat",), None, problem=f"no such file ({places[3]})", columns={"where": "x"}),
        Record("b/3.jpg", (), senders[4], columns={"where": "x"}),
    ]
    assert source.read(next(iter(source))) == b"a/1.jpg"


@pytest.mark.parametrize("kind", FORMATS)
def test_settings_as_text_in_a_file_and_in_a_worker(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, ROWS, kind)
    written = f"""{kind}({path}, image=file, label=label, labels={{"T-Shirt": "t-shirt"}}, drop=["Not sure"])"""
    source = spec.parse(written, "source")
    assert source == TableSource(path, "file", "label", labels={"T-Shirt": "t-shirt"}, drop="Not sure", format=kind)
    assert spec.format(source, "source").startswith(f"{kind}({path}, image=file, label=label, labels=")
    assert spec.parse(spec.format(source, "source"), "source") == source
    assert TableSource(path, "file") == TableSource(str(path), "file", format=kind)
    again = pickle.loads(pickle.dumps(source))
    assert again == source and list(again) == list(source)


def test_a_table_and_a_folder_name_the_same_rows(tmp_path: Path) -> None:
    files = ("train/hat/1.jpg", "train/hat/2.jpg", "train/shoe/1.jpg", "test/hat/3.jpg", "val/shoe/4.jpg")
    folder = FolderSource(make(tmp_path / "data", *files))
    rows = [{"file": r.key, "label": r.label, "split": r.split} for r in folder]
    rows[0]["label"] = "shoe"
    table = TableSource(write(tmp_path, rows, "csv"), "file", "label", split="split", root=tmp_path / "data")
    assert table.classes == folder.classes
    assert [(r.key, r.split, r.problem) for r in table] == [(r.key, r.split, None) for r in folder]
    labels = {record.key: record.label for record in folder}
    assert [record.key for record in table if record.label != labels[record.key]] == ["train/hat/1.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na.jpg,cat\nb.jpg,dog\n",
        "\ufefffile,label\na.jpg,cat\nb.jpg,dog\n",
        "file,label\r\na.jpg,cat\r\nb.jpg,dog",
        "file,label\ra.jpg,cat\rb.jpg,dog\r",
        '"file","label"\n"a.jpg","cat"\n\n"b.jpg","dog"\n\n',
        " file , label\n a.jpg , cat\nb.jpg,dog \n",
    ],
)
def test_ways_to_write_a_csv(tmp_path: Path, content: str) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    assert good(TableSource(text(tmp_path, content), "file", "label")) == [("a.jpg", ("cat",)), ("b.jpg", ("dog",))]


def test_another_delimiter(tmp_path: Path) -> None:
    make(tmp_path, "a,1.jpg")
    path = text(tmp_path, "file;label\na,1.jpg;cat\n", "labels.txt")
    source = TableSource(path, "file", "label", format="csv", delimiter=";")
    assert good(source) == [("a,1.jpg", ("cat",))]
    assert spec.parse(f"csv({path}, image=file, label=label, delimiter=;)", "source") == source


def test_broken_rows_are_reported_with_their_line_and_the_others_used(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    source = TableSource(
        text(tmp_path, 'file,label\n"a.jpg",cat\nb.jpg\n"x\ny",1,2\n,dog\nb.jpg,dog\n'), "file", "label"
    )
    assert good(source) == [("a.jpg", ("cat",)), ("b.jpg", ("dog",))]
    assert problems(source) == {
        "labels.csv, line 3": "has 1 cell where the header has 2 (line 3)",
        "labels.csv, line 4": "has 3 cells where the header has 2 (line 4)",
        "labels.csv, line 6": "no file is named (line 6)",
    }
    lines = ['{"file": "a.jpg", "label": "cat"}', "{", "[1]", b'{"file": "\xff"}'.decode("latin-1"), '{"label": "dog"}']
    content = b"\n".join(line.encode("latin-1") for line in [*lines, '{"file": "b.jpg"}', "[" * 100_000])
    source = TableSource(text(tmp_path, content, "labels.jsonl"), "file", "label")
    assert good(source) == [("a.jpg", ("cat",)), ("b.jpg", ())]
    told = list(problems(source).values())
    assert [problem.split(" (")[0] for problem in told] == [
        *("is no JSON", "is no JSON object", "is no JSON", "no file is named", "is no JSON")
    ]
    assert [re.findall(r"line (\d+)\)$", problem) for problem in told] == [["2"], ["3"], ["4"], ["5"], ["7"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "labels.csv",
            b"file,label\na.jpg,cat\nb.jpg,d\xf6g\n",
            "labels.csv, line 3: is no UTF-8; save the table as UTF-8",
        ),
        (
            "labels.csv",
            'file,label\na.jpg,cat\n"b.jpg,dog\nc.jpg,dog\n',
            "labels.csv, line 4: cannot be read any further",
        ),
        ("labels.csv", '"' + "x" * 200_000, "labels.csv, line 1: cannot be read any further (field larger than field"),
        ("labels.csv", "", "labels.csv has no column 'file', which image= names (columns: none)"),
        ("labels.csv", "File,label\n", "has no column 'file', which image= names; did you mean 'File'? (columns: File"),
        (
            "labels.csv",
            "file,label,file\n",
            "labels.csv has two columns 'file', which image= names (columns: file, label",
        ),
        ("labels.csv", "path;label\n", "(columns: path, label)"),
        ("labels.jsonl", '{"path": "a.jpg"}\n{"image": "a.jpg"}\n', "(columns: path, image)"),
        ("labels.parquet", b"PAR1 is not enough", "labels.parquet cannot be read as Parquet"),
        ("labels.parquet", b"", "labels.parquet cannot be read as Parquet"),
    ],
)
def test_unreadable_tables_are_reported_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    source = TableSource(text(tmp_path, content, name), "file", "label")
    for read in (lambda: list(source), lambda: source.classes):
        with pytest.raises(SourceError, match=re.escape(message)) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"label": "lable"},
            "has no column 'lable', which label= names; did you mean 'label'? (columns: file, label, set)",
        ),
        ({"group": "sender"}, "has no column 'sender', which group= names (columns: file, label, set)"),
        (
            {"labels": {"Cat": "x"}},
            "no row has the label 'Cat' that labels= names; did you mean 'cat'? (labels: cat, dog",
        ),
        (
            {"drop": ["dgo"]},
            "no row has the label 'dgo' that drop= names; did you mean 'dog'? (labels: cat, dog, not sure)",
        ),
        ({"split": "set"}, "labels.csv, line 3: 'set' is 'gone'; it must be train, val (or validation, valid) or test"),
    ],
)
def test_names_that_the_table_does_not_have(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = text(tmp_path, "file,label,set\na.jpg,cat,Train\nb.jpg,dog,gone\nc.jpg,not sure,\n")
    source = TableSource(path, **{"image": "file", "label": "label", **settings})
    with pytest.raises(SourceError, match=re.escape(message)):
        _ = source.classes


@pytest.mark.parametrize(
    ("make_source", "message"),
    [
        (lambda root: TableSource(root / "none.csv", "file"), "no such table: "),
        (lambda root: TableSource(root, "file"), "is no regular file"),
        (lambda root: TableSource("/dev/null", "file"), "/dev/null is no regular file"),
        (lambda root: TableSource("x" * 5000, "file"), "cannot be read (File name too long)"),
        (lambda root: TableSource(root / "labels.csv", "file", root=root / "labels.doc"), "labels.doc is no folder"),
        (
            lambda root: TableSource(root / "labels.doc", "file"),
            "is it csv, tsv, json, jsonl, parquet or arrow? name it with format=",
        ),
        (lambda root: TableSource(root / "labels.csv", "file", root=root / "none"), "no such folder: "),
        (
            lambda root: TableSource(root / "labels.csv", "file", delimiter="||"),
            "must be one character, for CSV or TSV",
        ),
        (
            lambda root: TableSource(root / "labels.jsonl", "file", delimiter=";"),
            "must be one character, for CSV or TSV",
        ),
        (lambda root: TableSource(root / "labels.csv", "file", separator=""), "separator= must be a character or more"),
    ],
)
def test_invalid_settings_are_reported_at_once(
    tmp_path: Path, make_source: Callable[[Path], Any], message: str
) -> None:
    for name in ("labels.csv", "labels.doc", "labels.jsonl"):
        text(tmp_path, "file\n", name)
    with pytest.raises(SourceError, match=re.escape(message)):
        make_source(tmp_path)


def test_several_labels_per_cell(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    path = text(tmp_path, "file,label\na.jpg,cat | dog|cat\nb.jpg,|\nc.jpg,wolf|cat\nd.jpg,cat|blurred\n")
    source = TableSource(path, "file", "label", separator="|", labels={"wolf": "dog"}, drop=["blurred"])
    assert source.classes == ("cat", "dog")
    assert good(source) == [("a.jpg", ("cat", "dog")), ("b.jpg", ()), ("c.jpg", ("dog", "cat"))]
    assert problems(source) == {"d.jpg": "dropped: its label is 'blurred' (line 5)"}
    lists = [{"file": "a.jpg", "label": ["cat", "dog"]}, {"file": "b.jpg", "label": []}]
    for kind in ("jsonl", "parquet"):
        assert good(TableSource(write(tmp_path, lists, kind), "file", "label")) == [
            ("a.jpg", ("cat", "dog")),
            ("b.jpg", ()),
        ]


def test_splits_in_any_case_and_classes_that_only_test_rows_have(tmp_path: Path) -> None:
    marks = ("train", "VAL", "Validation", "valid", "TEST", " Train ", "")
    files = [f"{number}.jpg" for number in range(len(marks))]
    make(tmp_path, *files)
    labels = ("10", "2", "2", "2", "only here", "2", "2")
    lines = [",".join(cells) for cells in zip(files, labels, marks, strict=True)]
    path = text(tmp_path, "\n".join(["file,label,set", *lines]))
    source = TableSource(path, "file", "label", split="set")
    assert [record.split for record in source] == ["train", "val", "val", "val", "test", "train", None]
    assert source.classes == ("2", "10")
    tests = TableSource(text(tmp_path, "file,label,set\n4.jpg,only here,test\n"), "file", "label", split="set")
    assert tests.classes == ("only here",)


def test_a_file_that_several_rows_name_counts_once_or_not_at_all(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}.jpg" for name in "abcd"))
    lines = [
        "a.jpg,cat",
        "b.jpg,cat",
        "./a.jpg,cat",
        f"{tmp_path}/b.jpg,dog",
        "c.jpg,unsure",
        "c.jpg,dog",
        "d.jpg,unsure",
    ]
    lines += ["x/../a.jpg,cat", "d.jpg,unsure", "none.jpg,cat", "none.jpg,cat"]
    path = text(tmp_path, "\n".join(["file,label", *lines]))
    source = TableSource(path, "file", "label", drop=["unsure"])
    assert good(source) == [("a.jpg", ("cat",)), ("c.jpg", ("dog",))]
    assert problems(source) == {
        "a.jpg#2": "stands in line 2 already (line 4)",
        "a.jpg#3": "stands in line 2 already (line 9)",
        "b.jpg": "line 3 and line 5 give it different labels; if it has all of them, give merge=true (line 3)",
        "b.jpg#2": "line 3 and line 5 give it different labels; if it has all of them, give merge=true (line 5)",
        "c.jpg#2": "dropped: its label is 'unsure' (line 6)",
        "d.jpg": "dropped: its label is 'unsure' (line 8)",
        "d.jpg#2": "dropped: its label is 'unsure' (line 10)",
        "none.jpg": "no such file (line 11)",
        "none.jpg#2": "no such file (line 12)",
    }


def test_missing_files_are_reported_before_their_labels_are_dropped(tmp_path: Path) -> None:
    source = TableSource(text(tmp_path, "file,label\nnone.jpg,Skip\n"), "file", "label", drop=["Skip"])
    assert problems(source) == {"none.jpg": "no such file (line 2)"}


def test_labels_in_nfc_and_names_in_any_normal_form(tmp_path: Path) -> None:
    name, other = "é.jpg", unicodedata.normalize("NFD", "ö.jpg")
    make(tmp_path, unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", other))
    path = text(tmp_path, f"file,label\n{name},caf\u00e9\n{other},cafe\u0301\n")
    source = TableSource(path, "file", "label")
    assert good(source) == [(name, ("café",)), (unicodedata.normalize("NFC", other), ("café",))]
    assert source.classes == ("café",)


def test_paths_written_on_windows(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")
    assert good(TableSource(text(tmp_path, "file\na\\1.jpg\n"), "file")) == [("a/1.jpg", ())]


def test_a_parquet_column_of_bytes_is_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    columns = {
        "file": ["a.jpg"],
        "bytes": [b"\xff\x00"],
        "image": [{"bytes": b"\xff", "path": "x"}],
        "label": pa.array(["cat"]).dictionary_encode(),
        "width": [3],
        "share": [float("nan")],
    }
    parquet.write_table(pa.table(columns), tmp_path / "labels.parquet")
    source = TableSource(tmp_path / "labels.parquet", "file", "label")
    (record,) = source
    assert record.labels == ("cat",) and record.columns == {"image.path": "x", "width": "3"}
    with pytest.raises(SourceError, match=r"has no column 'picture', which image= names \(columns: file, image.path"):
        list(TableSource(tmp_path / "labels.parquet", "picture"))


def test_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "tables/labels.csv", "images/a.jpg")
    path = text(tmp_path / "tables", "file,label\na.jpg,cat\n")
    monkeypatch.chdir(tmp_path)
    near = TableSource("tables/labels.csv", "file", "label", root="images")
    far = near.resolved()
    assert (far.path, far.root, far.name) == (str(path), str(tmp_path / "images"), "labels")
    monkeypatch.chdir("/")
    assert good(far) == [("a.jpg", ("cat",))]


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|;,[{"), max_size=4),
        ),
        max_size=8,
    )
)
def test_every_row_of_any_table_has_a_key_of_its_own(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        lines = [{"file": file, "label": label} for file, label in rows] or [{"file": "", "label": ""}]
        read = [list(TableSource(write(root, lines, kind), "file", "label")) for kind in ("jsonl", "parquet")]
        for records in read:
            assert len(records) == len(lines)
            assert len({record.key for record in records}) == len(lines)
            for record in records:
                assert not record.key.startswith("/") and ".." not in record.key.split("/")
                assert unicodedata.is_normalized("NFC", record.key)
        assert [record.labels for record in read[0]] == [record.labels for record in read[1]]


@pytest.mark.slow
def test_a_long_table_is_read_in_constant_memory(tmp_path: Path) -> None:
    count = 10_000
    lines = (f"{number}.jpg,class {number % 10},{'x' * 4000}\n" for number in range(count))
    path = text(tmp_path, "file,label,note\n" + "".join(lines))
    source = TableSource(path, "file", "label")
    tracemalloc.start()
    assert sum(1 for _ in source) == count
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12_000_000 < 40_000_000 < path.stat().st_size


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_strings_of_a_table_that_are_no_utf8_are_told(tmp_path: Path, suffix: str) -> None:
    import pyarrow
    from pyarrow import feather, parquet

    name = pyarrow.array([b"\xf9.png"]).view(pyarrow.string())
    table = pyarrow.table({"file": name, "label": ["x"]})
    path = tmp_path / f"t{suffix}"
    parquet.write_table(table, path) if suffix == ".parquet" else feather.write_feather(table, path)
    with pytest.raises(SourceError, match=path.name):
        list(TableSource(path, image="file", label="label"))
