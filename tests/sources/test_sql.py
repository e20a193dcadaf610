"""`SqlSource` on SQLite and on a PostgreSQL server: the rows of a table, whatever holds it, and nothing written."""

from __future__ import annotations

import csv
import gc
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy

from visionadapt import spec
from visionadapt.errors import ImageError, SourceError
from visionadapt.records import Record, manifest_of
from visionadapt.sources import SqlSource, TableSource

from ..postgresql import Server
from .shops import PASSWORD, Shop, postgresql_shop, sqlite_shop
from .test_folder import make

ROWS = (
    {"id": 1, "file": "a/1.jpg", "label": "T-Shirt", "sender": 7, "part": "train"},
    {"id": 2, "file": "a/2.jpg", "label": "Hat", "sender": 7, "part": "val"},
    {"id": 3, "file": "b/é.jpg", "label": "Not sure", "sender": 8, "part": "Test"},
    {"id": 4, "file": "b/none.jpg", "label": " Hat ", "sender": None, "part": ""},
    {"id": 5, "file": "./a/1.jpg", "label": "T-Shirt", "sender": 9, "part": None},
    {"id": 6, "file": "../../etc/passwd", "label": "Hat", "sender": 9, "part": None},
    {"id": 7, "file": None, "label": None, "sender": 9, "part": None},
    {"id": 8, "file": "https://example.org/8.jpg", "label": "Hat", "sender": 9, "part": None},
    {"id": 9, "file": "b/9.jpg", "label": None, "sender": 9, "part": None},
)
NUMBERS = {"id": sqlalchemy.Integer, "sender": sqlalchemy.Integer, "data": sqlalchemy.LargeBinary}
HOSTILE = "x\"; DROP TABLE pictures; -- '); :name %s %(p)s `y`"


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_shop(tmp_path)
    server: Server = request.getfixturevalue("postgresql")
    monkeypatch.setenv(PASSWORD, server.password)
    return postgresql_shop(tmp_path, server)


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """The rows above, and those of their pictures that there are."""
    make(shop.root, "a/1.jpg", "a/2.jpg", "b/é.jpg", "b/9.jpg")
    shop.fill("pictures", ROWS, key=["id"], **NUMBERS)
    return shop


def numbered(count: int, **cells: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{"id": number, **{name: cell(number) for name, cell in cells.items()}} for number in range(count)]


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
    table, source = TableSource(tmp_path / "labels.csv", **settings), filled.source(table="pictures", **settings)
    assert source.classes == table.classes == ("Hat", "t-shirt")
    places = {f"line {row['id'] + 1}": f"id {row['id']}" for row in ROWS}
    wanted = [
        Record(
            record.key.replace("labels.csv, line 8", "pictures, id 7"),
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


def test_pictures_in_the_database_are_read_by_their_key(shop: Shop) -> None:
    rows = numbered(5, data=lambda number: (b"\x89" + bytes([number]), b"", None, b"x" * 101, b"\x00")[number])
    shop.fill("pictures", rows, key=["id"], **NUMBERS)
    source = shop.source(table="pictures", image="data", max_bytes=100)
    records = list(source)
    assert [(record.key, record.problem) for record in records] == [
        ("0", None),
        ("1", None),
        ("2", "has no picture (id 2)"),
        ("3", "has 101 bytes, more than the limit max_bytes=100 (id 3)"),
        ("4", None),
    ]
    assert [source.read(records[number]) for number in (4, 0, 1)] == [b"\x00", b"\x89\x00", b""]
    for record in manifest_of(source):
        assert record == records[int(record.key)]
    shop.run("DELETE FROM pictures WHERE id = 0")
    with pytest.raises(ImageError, match=r"^0: no row with at most 100 bytes in 'data' has this key"):
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
    shop.fill("pictures", rows, key=["name"], **{**NUMBERS, "name": column})
    source = shop.source(table="pictures", image="data")
    records = list(pickle.loads(pickle.dumps(source)))
    assert [source.read(record) for record in records] == [row["data"] for row in rows]
    assert len({record.key for record in records}) == len(rows)
    for record, key in zip(records, keys, strict=True):
        assert record.key.replace("-", "").replace("0", "").endswith(key.replace("-", "").replace("0", ""))


def test_a_primary_key_of_several_columns(shop: Shop) -> None:
    rows = [{"shop": name, "number": number, "data": f"{name}{number}".encode()} for name in "ba" for number in (2, 1)]
    shop.fill("pictures", rows, key=["shop", "number"], number=sqlalchemy.Integer, data=sqlalchemy.LargeBinary)
    source = shop.source(table="pictures", image="data")
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
    shop.fill("pictures", rows, key=["id"], **NUMBERS)
    source = shop.source(table="pictures", image="file", key="name")
    assert [(record.key, record.location, record.problem) for record in source] == [
        ("q/b", "1.jpg", None),
        ("q/a", "2.jpg", None),
        ("q/c", "3.jpg", None),
        ("q/b#2", "1.jpg", "stands in id 0 already (id 3)"),
    ]
    held = shop.source(table="pictures", image="data", key="name")
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
    with pytest.raises(SourceError, match=r"table 'loose' of .* has no primary key; name the column .*: key=…"):
        list(shop.source(table="loose", image="file", content="blob"))
    schema = {"sqlite": "main", "postgresql": "public"}[shop.kind]
    assert len(list(shop.source(table="loose", schema=schema, image="file"))) == 3
    with pytest.raises(SourceError, match=rf"has no schema 'publik'.* \(schemas: .*{schema}"):
        list(shop.source(table="loose", schema="publik", image="file"))


def test_several_labels_a_cell(shop: Shop) -> None:
    make(shop.root, "0.jpg", "1.jpg")
    rows = numbered(2, file=lambda n: f"{n}.jpg", label=lambda n: ("cat| dog", "wolf")[n])
    shop.fill("pictures", rows, key=["id"], **NUMBERS)
    source = shop.source(table="pictures", image="file", label="label", separator="|")
    assert [record.labels for record in source] == [("cat", "dog"), ("wolf",)]
    if shop.kind == "postgresql":
        query = "SELECT file, string_to_array(label, '| ') AS names FROM pictures ORDER BY id DESC"
        source = shop.source(query=query, image="file", label="names")
        assert [record.labels for record in source] == [("wolf",), ("cat", "dog")]


def test_further_columns_only_where_they_are_named(filled: Shop) -> None:
    first = next(iter(filled.source(table="pictures", image="file")))
    assert first.columns == {}
    first = next(iter(filled.source(table="pictures", image="file", label="label", columns=["sender", "id", "part"])))
    assert first.columns == {"sender": "7", "id": "1", "part": "train"}


QUERIES = [
    ("SELECT file FROM pictures WHERE id IN (1, 2, 9) ORDER BY id DESC", ["b/9.jpg", "a/2.jpg", "a/1.jpg"]),
    ("  select file from pictures where id = 2 ;\n", ["a/2.jpg"]),
    ("WITH x AS (SELECT * FROM pictures) SELECT file FROM x WHERE part = 'val' AND ';--/*:x' <> ''", ["a/2.jpg"]),
    ("SELECT replace('a:b::c/2.jpg :x %s', 'a:b::c', 'a') AS file", ["a/2.jpg :x %s"]),
    ("SELECT max(file) AS file FROM pictures WHERE file LIKE 'a/%' AND file NOT LIKE '%)%'", ["a/2.jpg"]),
    ('SELECT file AS "file", id AS ":x (y) %s" FROM pictures WHERE id = 1', ["a/1.jpg"]),
]


@pytest.mark.parametrize(("query", "keys"), QUERIES)
def test_a_query_as_it_stands(filled: Shop, query: str, keys: list[str]) -> None:
    source = filled.source(query=query, image="file")
    assert [record.key for record in source] == keys
    assert spec.parse(spec.format(source, "source"), "source") == source
    if '"' in query:
        source = filled.source(query=query, image="file", key=":x (y) %s")
        assert [record.key for record in source] == ["1"]


def test_a_query_for_pictures_in_the_database(shop: Shop) -> None:
    shop.fill("pictures", numbered(3, name=lambda n: "cab"[n], data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    settings = {"query": "SELECT name, data FROM pictures WHERE id < 9 ORDER BY id", "image": "data"}
    source = shop.source(**settings, key="name")
    assert [(record.key, source.read(record)) for record in source] == [("a", b"\1"), ("b", b"\2"), ("c", b"\0")]
    with pytest.raises(SourceError, match=r"the query on .* has no primary key"):
        list(shop.source(**settings))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM pictures", "must begin with SELECT or WITH"),
        ("", "must begin with SELECT or WITH"),
        ("SELECTED", "must begin with SELECT or WITH"),
        ("SELECT 1; DELETE FROM pictures", "must be one statement"),
        ("SELECT ';'; DELETE FROM pictures;", "must be one statement"),
        ("SELECT 1 -- x", "must have no comments"),
        ("SELECT 1 /* x */", "must have no comments"),
        ("SELECT 'x", "open quotation marks"),
        (r"SELECT '\'; DELETE FROM pictures; SELECT '", "must "),
        (r"SELECT '\' || '; DELETE FROM pictures; SELECT '", "must "),
        ("SELECT file FROM pictures) AS x, (SELECT 1", "bracket without its counterpart"),
        ("SELECT (1", "bracket without its counterpart"),
    ],
)
def test_a_query_is_one_select(tmp_path: Path, query: str, message: str) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("pictures", ROWS, key=["id"], **NUMBERS)
    with pytest.raises(SourceError, match=re.escape(message)):
        shop.source(query=query, image="file")


def test_hostile_names_change_nothing(filled: Shop) -> None:
    before = filled.state()
    attempts: list[dict[str, Any]] = [
        {"table": HOSTILE, "image": "file"},
        {"table": "pictures", "schema": HOSTILE, "image": "file"},
        *(
            {"table": "pictures", "image": "file", option: HOSTILE}
            for option in ("label", "key", "group", "split", "columns")
        ),
        {"table": "pictures", "image": HOSTILE},
        {"query": "SELECT * FROM pictures", "image": HOSTILE},
        {"query": "SELECT * FROM pictures", "image": "file", "key": HOSTILE},
        {"table": "pictures", "image": "file", "label": "label", "labels": {HOSTILE: "x"}},
        {"table": "pictures", "image": "file", "label": "label", "drop": [HOSTILE]},
    ]
    for settings in attempts:
        with pytest.raises(SourceError, match="DROP TABLE") as caught:
            _ = filled.source(**settings).classes
        assert "\n" not in str(caught.value)
    assert filled.state() == before


def test_hostile_names_that_are_there_are_names_and_no_more(filled: Shop) -> None:
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
    source = filled.source(table="pictures", image="file")
    assert len(list(source)) == len(ROWS)
    for statement in ("DELETE FROM pictures", "CREATE TABLE more (x INT)", "DROP TABLE pictures"):
        with (
            pytest.raises(SourceError, match=r"read.?only"),
            source._database.connected() as connection,
        ):
            connection.exec_driver_sql(statement)
            connection.commit()
    assert filled.state() == before


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_a_function_that_writes_cannot(filled: Shop) -> None:
    filled.run("CREATE FUNCTION wipe() RETURNS text LANGUAGE sql AS $$ DELETE FROM pictures RETURNING file $$")
    before = filled.state()
    writable = "set_config('transaction_read_only', 'off', {})"
    for query in (
        "SELECT wipe() AS file",
        f"SELECT {writable.format('false')} || wipe() AS file",
        f"SELECT {writable.format('true')} AS file",
        "WITH gone AS (DELETE FROM pictures RETURNING file) SELECT file FROM gone",
        "SELECT file FROM pictures FOR UPDATE",
        "SELECT file INTO more FROM pictures",
    ):
        with pytest.raises(SourceError):
            list(filled.source(query=query, image="file"))
    assert filled.state() == before


def test_rows_of_broken_cells_are_told(shop: Shop) -> None:
    make(shop.root, "a.jpg")
    shop.fill("pictures", numbered(2, file=lambda n: ("a.jpg", "b.jpg")[n], label=lambda _: "x"), key=["id"], **NUMBERS)
    if shop.kind == "sqlite":
        shop.run("UPDATE pictures SET file = X'FF00', label = CAST(X'FF41' AS TEXT) WHERE id = 1")
        (_, broken) = shop.source(table="pictures", image="file", label="label")
        assert broken.problem == "'file' holds bytes and no path (id 1)" and broken.labels == ("\\xffA",)
    shop.run("UPDATE pictures SET label = 'dev'")
    with pytest.raises(SourceError, match=r"table 'pictures' of .*, id 0: 'label' is 'dev'; it must be train, val"):
        list(shop.source(table="pictures", image="file", split="label"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "picture"}, "has no table 'picture'; did you mean 'pictures'? (tables: pictures)"),
        ({"image": "path"}, "table 'pictures' of DB has no column 'path', which image= names; did you mean 'part'?"),
        ({"label": "lable"}, "has no column 'lable', which label= names; did you mean 'label'?"),
        ({"key": "ids"}, "has no column 'ids', which key= names; did you mean 'id'?"),
        ({"columns": "parts"}, "has no column 'parts', which columns= names; did you mean 'part'?"),
        (
            {"table": None, "query": "SELECT id FROM pictures"},
            "the query on DB has no column 'file', which image= names",
        ),
        ({"table": None, "query": "SELECT x FROM pictures"}, "x"),
        ({"table": None, "query": "SELECT FROM WHERE"}, "syntax error"),
        (
            {"drop": ["T-shirt"], "label": "label"},
            "no row has the label 'T-shirt' that drop= names; did you mean 'T-Shirt'",
        ),
    ],
)
def test_what_the_database_does_not_have(filled: Shop, settings: dict[str, Any], message: str) -> None:
    source = filled.source(**{"table": "pictures", "image": "file", **settings})
    with pytest.raises(SourceError) as caught:
        _ = source.classes
    known = str(source._address)
    assert re.sub("://.*@", "://…@", message.replace("DB", known)) in str(caught.value)
    assert "\n" not in str(caught.value) and "SELECT" not in str(caught.value)


def test_settings_as_text_in_a_pickle_and_in_a_manifest(filled: Shop) -> None:
    text = (
        f"sql({filled.text}, table=pictures, image=file, label=label, labels={{T-Shirt: shirt}}, drop=[Not sure], "
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
    assert (source.name, str(source)) == ("pictures", f"pictures of {source._address}")


def backend_and_bytes(source: SqlSource, record: Record) -> tuple[str, bytes]:
    with source._database.connected() as connection:
        backend = "SELECT pg_backend_pid()" if connection.dialect.name == "postgresql" else "SELECT 0"
        return str(connection.exec_driver_sql(backend).scalar()), source.read(record)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_has_connections_of_its_own(shop: Shop, method: str) -> None:
    shop.fill("pictures", numbered(3, data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    source = shop.source(table="pictures", image="data")
    records = list(source)
    before = backend_and_bytes(source, records[0])
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(backend_and_bytes, [(source, record) for record in records], chunksize=1)
    assert [data for _, data in found] == [b"\0", b"\1", b"\2"]
    if shop.kind == "postgresql":
        assert before[0] not in {backend for backend, _ in found}
    assert backend_and_bytes(source, records[0])[1] == before[1]


def test_a_fork_that_goes_on_with_a_source_leaves_its_parents_connection(shop: Shop) -> None:
    shop.fill("pictures", numbered(2, data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    source, idle = (shop.source(table="pictures", image="data") for _ in range(2))
    records = iter(source)
    first = next(records)
    assert idle.read(first) == b"\0"
    child = os.fork()
    if child == 0:
        good = len(list(source)) == 2 and source.read(first) == b"\0"
        del idle
        gc.collect()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source.read(first) == b"\0" and next(records).key == "1" and idle.read(first) == b"\0"


def test_pictures_are_not_fetched_to_list_them(tmp_path: Path) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("pictures", numbered(30, data=lambda n: bytes(1 << 20)), key=["id"], **NUMBERS)
    source = shop.source(table="pictures", image="data")
    assert source._asked.content == "blob"
    tracemalloc.start()
    records = list(source)
    _, listed = tracemalloc.get_traced_memory()
    assert len(source.read(records[3])) == 1 << 20
    _, read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed < 1 << 20 <= read < 4 << 20


MEASURE = """
import resource, sys
from visionadapt.sources import SqlSource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
long = "repeat('x', 6000)" if "postgresql" in sys.argv[1] else "hex(zeroblob(3000))"
numbers = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {})"
query = numbers + f" SELECT n || {long} AS file, n % 7 AS label FROM n"
settings = dict(image="file", label="label", root="/", password=sys.argv[2] if len(sys.argv) > 2 else None)
few = SqlSource(sys.argv[1], query=query.format(1999), **settings)
assert len(few.classes) == 7 and sum(1 for _ in few) == 2000
before = peak()
many = SqlSource(sys.argv[1], query=query.format(9_999), **settings)
assert sum(1 for _ in many) == 10_000
print((peak() - before) // 1024)
"""


def test_rows_are_streamed(shop: Shop) -> None:
    shop.run("CREATE TABLE numbers (number INT)")
    command = [sys.executable, "-c", MEASURE, shop.url, *map(str, shop.settings.values())]
    grown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert grown.returncode == 0, grown.stderr
    assert int(grown.stdout) < 20, "MiB, where the rows have 60"
