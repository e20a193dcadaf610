"""Odd tables: nested too deeply, with times that Python cannot represent, and settings of the wrong kind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from visionadapt.core import spec
from visionadapt.errors import SourceError, UsageError
from visionadapt.sources import TableSource
from visionadapt.sources.opening import open_source

from .test_folder import make


def write_parquet(folder: Path, names: list[str], columns: list[Any]) -> Path:
    make(folder, "a.png", "b.png")
    parquet.write_table(pa.Table.from_arrays([pa.array(["a.png", "b.png"]), *columns], ["file", *names]), folder / "t")
    return folder / "t"


@pytest.mark.parametrize("depth", range(300, 1000, 100))
def test_a_json_row_of_any_depth_costs_itself_at_most(tmp_path: Path, depth: int) -> None:
    make(tmp_path, "a.png", "b.png")
    deep = '{"file": "a.png", "label": "x", "more": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "t.jsonl").write_text(f"{deep}\n{json.dumps({'file': 'b.png', 'label': 'y'})}\n")
    first, second = TableSource(tmp_path / "t.jsonl", "file", "label")
    assert first.key == "a.png" or first.problem == "has lists or objects in one another too deeply (line 1)"
    assert (second.key, second.labels, second.problem) == ("b.png", ("y",), None)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([1, None], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([253402300800, None], pa.timestamp("s")), "10000-01-01 00:00:00.000"),
        (pa.array([1, None], pa.duration("ns")), "1"),
        (pa.array([2**30, None], pa.date32()), None),
    ],
)
def test_times_that_python_cannot_represent(tmp_path: Path, column: Any, text: str | None) -> None:
    first, second = TableSource(write_parquet(tmp_path, ["when"], [column]), "file", format="parquet")
    assert text is None or first.columns["when"] == text
    assert second.columns == {}


def test_a_duplicate_parquet_column_matters_only_if_it_is_used(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, ["x", "x"], [pa.array([1, 2]), pa.array([3, 4])])
    assert [record.key for record in TableSource(path, "file", format="parquet")] == ["a.png", "b.png"]


def test_a_parquet_list_of_fixed_length_is_a_list(tmp_path: Path) -> None:
    column = pa.array([["x", "y"], ["y", "z"]], pa.list_(pa.string(), 2))
    source = TableSource(write_parquet(tmp_path, ["labels"], [column]), "file", "labels", format="parquet")
    assert [record.labels for record in source] == [("x", "y"), ("y", "z")]


def test_a_row_s_number_makes_no_key_that_another_row_has(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.png#2")
    (tmp_path / "t.csv").write_text("file,label\na.png,x\na.png,x\na.png#2,y\n")
    found = {record.key: record.problem for record in TableSource(tmp_path / "t.csv", "file", "label")}
    assert found == {"a.png": None, "a.png#3": "stands in line 2 already (line 3)", "a.png#2": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("labels=foo", "labels='foo' must be written like {old: new}"),
        ("labels=[x]", "must be written like {old: new}"),
        ("labels={x: ''}", r"gives 'x' an empty name; leave its rows out by drop=\[x\]"),
        ("max_bytes=many", "max_bytes='many' must be a whole number"),
        ("max_bytes=1e6", "max_bytes=1000000.0 must be a whole number"),
        ("max_bytes=0", "max_bytes=0 must be a whole number of at least 1"),
    ],
)
@pytest.mark.parametrize(
    "source",
    ["csv({}/t.csv, image=file, ", "sql(sqlite:///{}/t.csv, table=t, image=file, ", "api(https://h/x, image=f, "],
)
def test_arguments_of_the_wrong_kind_are_reported_in_one_line(
    tmp_path: Path, source: str, arguments: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text("file\n")
    with pytest.raises(SourceError, match=message):
        spec.parse(f"{source.format(tmp_path)}{arguments})", "source")


def test_a_number_can_separate_labels(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("file,label\na.png,x0y\n")
    (record,) = spec.parse(f"csv({tmp_path}/t.csv, image=file, label=label, separator=0)", "source")
    assert record.labels == ("x", "y")


def test_the_image_column_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\n")
    with pytest.raises(SourceError, match=r"image= must name a column \(columns: file, label\)"):
        list(spec.parse(f"csv({tmp_path}/t.csv, image=None)", "source"))


def test_no_key_holds_the_password_of_a_url(tmp_path: Path) -> None:
    urls = ("https://me:secret@host/a.png?key=secret", "ftp://me:se'cret@host/b.png", "s3://me:sec ret@bucket/c.png")
    (tmp_path / "t.csv").write_text("".join(f'"{line}"\n' for line in ("file", *urls)))
    records = list(TableSource(tmp_path / "t.csv", "file"))
    assert [record.problem for record in records] == [
        f"is a URL, and only files in the table's folder are read (line {line})" for line in (2, 3, 4)
    ]
    assert not any(word in record.key for record in records for word in ("secret", "cret", "ret@", "me:"))


@pytest.mark.parametrize("password", ["wo'rd", 'wo"rd', "wo rd", "w@rd", "wo/rd"])
def test_no_password_in_a_text_that_cannot_be_read_is_repeated(password: str) -> None:
    for text in (f"api(https://me:{password}@host/x, image=a)", f"sql(postgresql://me:{password}@host/x, image=a)"):
        with pytest.raises(UsageError) as raised:
            open_source(text)
        assert password not in str(raised.value) and "me:" not in str(raised.value)


def test_a_column_whose_name_is_no_utf_8_is_told(tmp_path: Path) -> None:
    table = pa.table({"file": ["a.png"], "label": ["cat"]})
    file = io.BytesIO()
    feather.write_feather(table, file)
    path = tmp_path / "table.arrow"
    path.write_bytes(file.getvalue().replace(b"label", b"la\xacel"))
    with pytest.raises(SourceError, match="UTF-8"):
        list(TableSource(path, image="file", label="label"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["clear primary", "clear primary water", "haze primary", "haze primary water", "cloudy", "clear road primary",
          "clear primary road water", "haze primary road", "clear agriculture primary"], True),
        (["cat", "dog", "bird", "cat dog", "dog bird", "cat dog bird"], True),
        (["yellow lab", "black lab", "red fox", "arctic fox", "black cat", "red panda"], False),
        (["Audi A4 Sedan 2012", "Audi A4 Coupe 2012", "Audi A5 Coupe 2012", "BMW M3 Coupe 2012"], False),
        (["golden retriever", "labrador retriever", "tiger cat", "tiger", "cat", "tiger shark", "shark"], False),
        (["red", "dark red", "blue", "dark blue", "green"], False),
    ],
)  # fmt: skip
def test_labels_that_look_like_lists_of_words_are_told(tmp_path: Path, names: list[str], told: bool) -> None:
    """As the tags of Planet's satellite images; names of several words are no lists."""
    (tmp_path / "a.csv").write_text("file,label\n" + "".join(f"{n}.jpg,{name}\n" for n, name in enumerate(names)))
    notes = TableSource(tmp_path / "a.csv", "file", "label").notes()
    assert any("separator=' '" in note for note in notes) is told, notes
    assert TableSource(tmp_path / "a.csv", "file", "label", separator=" ").notes() == ()
    named = {name: name for name in names}
    assert TableSource(tmp_path / "a.csv", "file", "label", labels=named).notes() == ()
