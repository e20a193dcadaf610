"""`SqlSource` on SQLite and on a PostgreSQL server: the rows of a table, and nothing written."""

from __future__ import annotations

import csv
import pickle
import re
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy

from visionadapt.core import spec
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import SqlSource, TableSource
from visionadapt.sources.opening import manifest_of

from .shops import NUMBERS, ROWS, Shop, numbered
from .test_folder import make

HOSTILE = "x\"; DROP TABLE images; -- '); :name %s %(p)s `y`"


@pytest.mark.slow
def test_a_database_and_a_table_in_a_file_have_the_same_rows(filled: Shop, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    settings: dict[str, Any] = {
        "image": "file",
        "label": "label",
        "labels": {"T-Shirt": "t-shirt"},
        "drop": ["Not sure"],
        "group": "sender",
        "split": "part",
        "root": filled.root,
    }
    table, source = TableSource(tmp_path / "labels.csv", **settings), filled.source(table="images", **settings)
    assert source.classes == table.classes == ("Hat", "t-shirt")
    places = {f"line {row['id'] + 1}": f"id {row['id']}" for row in ROWS}
    wanted = [
        Record(
            record.key.replace("labels.csv, line 8", "images, id 7"),
            record.labels,
            record.group,
            record.split,
            record.location,
            record.problem and re.sub(r"line \d+", lambda match: places[match[0]], record.problem),
        )
        for record in table
    ]
    assert list(source) == wanted
    assert [record.problem for record in source] == [
        None,
        None,
        "dropped: its label is 'Not sure' (id 3)",
        "no such file (id 4)",
        "stands in id 1 already (id 5)",
        "leads out of the folder (id 6)",
        "no file is named (id 7)",
        "is a URL, and only files in the table's folder are read (id 8)",
        None,
    ]
    for record in source:
        if record.problem is None:
            assert source.read(record) == (filled.root / record.key).read_bytes()
        else:
            with pytest.raises(ImageError, match=re.escape(record.problem)):
                source.read(record)


def test_images_in_the_database_are_read_by_their_key(shop: Shop) -> None:
    rows = numbered(5, data=lambda number: (b"\x89" + bytes([number]), b"", None, b"x" * 101, b"\x00")[number])
    shop.fill("images", rows, key=["id"], **NUMBERS)
    source = shop.source(table="images", image="data", max_bytes=100)
    records = list(source)
    assert [(record.key, record.problem) for record in records] == [
        ("0", None),
        ("1", None),
        ("2", "has no image (id 2)"),
        ("3", "has 101 bytes, more than the limit max_bytes=100 (id 3)"),
        ("4", None),
    ]
    assert [source.read(records[number]) for number in (4, 0, 1)] == [b"\x00", b"\x89\x00", b""]
    for record in manifest_of(source):
        assert record == records[int(record.key)]
    shop.run("DELETE FROM images WHERE id = 0")
    with pytest.raises(ImageError, match=r"^0: .* 100 bytes in 'data'"):
        source.read(records[0])
    with pytest.raises(ImageError, match="is no row of this database"):
        source.read(Record("0"))


KEYS: dict[str, tuple[Any, list[Any], list[str]]] = {
    "bigint": (sqlalchemy.BigInteger, [-1, 1 << 40], ["-1", "1099511627776"]),
    "text": (sqlalchemy.Text, ["../etc/x", "a'b\"c", "é"], ["etc/x", "a'b\"c", "é"]),
    "date": (sqlalchemy.Date, [date(2024, 2, 29), date(2025, 1, 1)], ["2024-02-29", "2025-01-01"]),
    "numeric": (sqlalchemy.Numeric(8, 2), [1.5, 20.25], ["1.5", "20.25"]),
    "uuid": (sqlalchemy.Uuid, [UUID(int=1), UUID(int=2)], ["1", "2"]),
    "bytes": (sqlalchemy.LargeBinary, [b"\x01", b"\xff"], ["01", "ff"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_any_type(shop: Shop, kind: str) -> None:
    column, values, keys = KEYS[kind]
    rows = [{"name": value, "data": str(value).encode()} for value in values]
    shop.fill("images", rows, key=["name"], **{**NUMBERS, "name": column})
    source = shop.source(table="images", image="data")
    records = list(pickle.loads(pickle.dumps(source)))
    assert [source.read(record) for record in records] == [row["data"] for row in rows]
    assert len({record.key for record in records}) == len(rows)
    for record, key in zip(records, keys, strict=True):
        assert record.key.replace("-", "").replace("0", "").endswith(key.replace("-", "").replace("0", ""))


def test_a_primary_key_of_several_columns(shop: Shop) -> None:
    rows = [{"shop": name, "number": number, "data": f"{name}{number}".encode()} for name in "ba" for number in (2, 1)]
    shop.fill("images", rows, key=["shop", "number"], number=sqlalchemy.Integer, data=sqlalchemy.LargeBinary)
    source = shop.source(table="images", image="data")
    assert [(record.key, source.read(record)) for record in source] == [
        ("a/1", b"a1"),
        ("a/2", b"a2"),
        ("b/1", b"b1"),
        ("b/2", b"b2"),
    ]


def test_a_column_that_names_the_rows(shop: Shop) -> None:
    make(shop.root, "1.jpg", "2.jpg", "3.jpg")
    rows = numbered(
        4, file=lambda n: f"{1 + n % 3}.jpg", name=lambda n: ("q/b", "q/a", "q/c", "q/b")[n], data=lambda _: b"x"
    )
    shop.fill("images", rows, key=["id"], **NUMBERS)
    source = shop.source(table="images", image="file", key="name")
    assert [(record.key, record.location, record.problem) for record in source] == [
        ("q/b", "1.jpg", None),
        ("q/a", "2.jpg", None),
        ("q/c", "3.jpg", None),
        ("q/b#2", "1.jpg", "stands in id 0 already (id 3)"),
    ]
    held = shop.source(table="images", image="data", key="name")
    found = next(record for record in held if record.problem is None and record.key == "q/b")
    with pytest.raises(ImageError, match="several rows have this key"):
        held.read(found)


def test_tables_without_primary_key_views_and_schemas(shop: Shop) -> None:
    make(shop.root, "a.jpg", "b.jpg", "c.jpg")
    shop.fill("loose", [{"file": f"{name}.jpg", "data": name} for name in "cab"])
    shop.run("CREATE VIEW seen AS SELECT file, data FROM loose WHERE file <> 'b.jpg'")
    assert [record.key for record in shop.source(table="loose", image="file")] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [record.key for record in shop.source(table="seen", image="file")] == ["a.jpg", "c.jpg"]
    missing = shop.source(table="loose", image="file")
    (shop.root / "a.jpg").unlink()
    assert [record.problem for record in missing] == ["no such file (row 1)", None, None]
    with pytest.raises(SourceError, match=r"table 'loose' of .*: key=…"):
        list(shop.source(table="loose", image="file", content="blob"))
    schema = {"sqlite": "main", "postgresql": "public"}[shop.kind]
    assert len(list(shop.source(table="loose", schema=schema, image="file"))) == 3
    with pytest.raises(SourceError, match=rf"has no schema 'publik'.* \(schemas: .*{schema}"):
        list(shop.source(table="loose", schema="publik", image="file"))


def test_several_labels_per_cell(shop: Shop) -> None:
    make(shop.root, "0.jpg", "1.jpg")
    rows = numbered(2, file=lambda n: f"{n}.jpg", label=lambda n: ("cat| dog", "wolf")[n])
    shop.fill("images", rows, key=["id"], **NUMBERS)
    source = shop.source(table="images", image="file", label="label", separator="|")
    assert [record.labels for record in source] == [("cat", "dog"), ("wolf",)]
    if shop.kind == "postgresql":
        query = "SELECT file, string_to_array(label, '| ') AS names FROM images ORDER BY id DESC"
        source = shop.source(query=query, image="file", label="names")
        assert [record.labels for record in source] == [("wolf",), ("cat", "dog")]


def test_further_columns_only_where_they_are_named(filled: Shop) -> None:
    first = next(iter(filled.source(table="images", image="file")))
    assert first.columns == {}
    first = next(iter(filled.source(table="images", image="file", label="label", columns=["sender", "id", "part"])))
    assert first.columns == {"sender": "7", "id": "1", "part": "train"}


def test_hostile_names_change_nothing(filled: Shop) -> None:
    before = filled.state()
    attempts: list[dict[str, Any]] = [
        {"table": HOSTILE, "image": "file"},
        {"table": "images", "schema": HOSTILE, "image": "file"},
        *(
            {"table": "images", "image": "file", option: HOSTILE}
            for option in ("label", "key", "group", "split", "columns")
        ),
        {"table": "images", "image": HOSTILE},
        {"query": "SELECT * FROM images", "image": HOSTILE},
        {"query": "SELECT * FROM images", "image": "file", "key": HOSTILE},
        {"table": "images", "image": "file", "label": "label", "labels": {HOSTILE: "x"}},
        {"table": "images", "image": "file", "label": "label", "drop": [HOSTILE]},
    ]
    for settings in attempts:
        with pytest.raises(SourceError, match="DROP TABLE") as caught:
            _ = filled.source(**settings).classes
        assert "\n" not in str(caught.value)
    assert filled.state() == before


def test_hostile_names_in_the_schema_are_only_names(filled: Shop) -> None:
    name, column = HOSTILE, HOSTILE[::-1]
    make(filled.root, "1.jpg")
    rows = [{"id": HOSTILE, column: "1.jpg", "label": HOSTILE, "data": b"held"}]
    filled.fill(name, rows, key=["id"], data=sqlalchemy.LargeBinary)
    before = filled.state()
    source = filled.source(table=name, image=column, label="label", labels={HOSTILE: f"{HOSTILE}'"}, columns=["id"])
    (record,) = source
    assert (record.key, record.labels, record.columns) == ("1.jpg", (f"{HOSTILE}'",), {"id": HOSTILE})
    assert source.classes == (f"{HOSTILE}'",) and source.read(record)
    held = filled.source(table=name, image="data", group=column)
    (record,) = held
    assert held.read(record) == b"held" and record.group == "1.jpg"
    assert re.fullmatch(r"[\w.-]+", held.name)
    assert filled.state() == before


def test_nothing_can_be_written(filled: Shop) -> None:
    before = filled.state()
    source = filled.source(table="images", image="file")
    assert len(list(source)) == len(ROWS)
    for statement in ("DELETE FROM images", "CREATE TABLE more (x INT)", "DROP TABLE images"):
        with (
            pytest.raises(SourceError, match=r"read.?only"),
            source._database.connected() as connection,
        ):
            connection.exec_driver_sql(statement)
            connection.commit()
    assert filled.state() == before


def test_rows_with_broken_cells_are_reported(shop: Shop) -> None:
    make(shop.root, "a.jpg")
    shop.fill("images", numbered(2, file=lambda n: ("a.jpg", "b.jpg")[n], label=lambda _: "x"), key=["id"], **NUMBERS)
    if shop.kind == "sqlite":
        shop.run("UPDATE images SET file = X'FF00', label = CAST(X'FF41' AS TEXT) WHERE id = 1")
        (_, broken) = shop.source(table="images", image="file", label="label")
        assert broken.problem == "'file' holds bytes and no path (id 1)" and broken.labels == ("\\xffA",)
    shop.run("UPDATE images SET label = 'gone'")
    with pytest.raises(SourceError, match=r"table 'images' of .*, id 0: 'label' is 'gone'"):
        list(shop.source(table="images", image="file", split="label"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "image"}, "has no table 'image'; did you mean 'images'? (tables: images)"),
        ({"image": "path"}, "table 'images' of DB has no column 'path', which image= names; did you mean 'part'?"),
        ({"label": "lable"}, "has no column 'lable', which label= names; did you mean 'label'?"),
        ({"key": "ids"}, "has no column 'ids', which key= names; did you mean 'id'?"),
        ({"columns": "parts"}, "has no column 'parts', which columns= names; did you mean 'part'?"),
        (
            {"table": None, "query": "SELECT id FROM images"},
            "the query on DB has no column 'file', which image= names",
        ),
        ({"table": None, "query": "SELECT x FROM images"}, "x"),
        ({"table": None, "query": "SELECT FROM WHERE"}, "syntax error"),
        (
            {"drop": ["T-shirt"], "label": "label"},
            "no row has the label 'T-shirt' that drop= names; did you mean 'T-Shirt'",
        ),
    ],
)
def test_what_the_database_does_not_have(filled: Shop, settings: dict[str, Any], message: str) -> None:
    source = filled.source(**{"table": "images", "image": "file", **settings})
    with pytest.raises(SourceError) as caught:
        _ = source.classes
    known = str(source._database.url)
    assert re.sub("://.*@", "://…@", message.replace("DB", known)) in str(caught.value)
    assert "\n" not in str(caught.value) and "SELECT" not in str(caught.value)


def test_settings_as_text_in_a_pickle_and_in_a_manifest(filled: Shop) -> None:
    text = (
        f"sql({filled.text}, table=images, image=file, label=label, labels={{T-Shirt: shirt}}, drop=[Not sure], "
        f"group=sender, split=part, root={filled.root})"
    )
    source = spec.parse(text, "source")
    assert isinstance(source, SqlSource) and source.labels == {"T-Shirt": "shirt"}
    assert spec.parse(spec.format(source, "source"), "source") == source
    assert pickle.loads(pickle.dumps(source)) == source
    before = list(source)
    again = pickle.loads(pickle.dumps(source))
    assert (
        again == source
        and list(again) == before
        and [record.key for record in manifest_of(again)] == [record.key for record in before]
    )
    assert (source.name, str(source)) == ("images", f"images of {source._database.url}")
