"""`SqlSource` on a query: it is used unchanged, must be one SELECT, and cannot write whatever it calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from visionadapt.core import spec
from visionadapt.errors import SourceError

from .shops import NUMBERS, ROWS, Shop, numbered, sqlite_shop

QUERIES = [
    ("SELECT file FROM images WHERE id IN (1, 2, 9) ORDER BY id DESC", ["b/9.jpg", "a/2.jpg", "a/1.jpg"]),
    ("  select file from images where id = 2 ;\n", ["a/2.jpg"]),
    ("WITH x AS (SELECT * FROM images) SELECT file FROM x WHERE part = 'val' AND ';--/*:x' <> ''", ["a/2.jpg"]),
    ("SELECT replace('a:b::c/2.jpg :x %s', 'a:b::c', 'a') AS file", ["a/2.jpg :x %s"]),
    ("SELECT max(file) AS file FROM images WHERE file LIKE 'a/%' AND file NOT LIKE '%)%'", ["a/2.jpg"]),
    ('SELECT file AS "file", id AS ":x (y) %s" FROM images WHERE id = 1', ["a/1.jpg"]),
]


@pytest.mark.parametrize(("query", "keys"), QUERIES)
def test_a_query_is_used_unchanged(filled: Shop, query: str, keys: list[str]) -> None:
    source = filled.source(query=query, image="file")
    assert [record.key for record in source] == keys
    assert spec.parse(spec.format(source, "source"), "source") == source
    if '"' in query:
        source = filled.source(query=query, image="file", key=":x (y) %s")
        assert [record.key for record in source] == ["1"]


def test_a_query_for_images_in_the_database(shop: Shop) -> None:
    shop.fill("images", numbered(3, name=lambda n: "cab"[n], data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    settings = {"query": "SELECT name, data FROM images WHERE id < 9 ORDER BY id", "image": "data"}
    source = shop.source(**settings, key="name")
    assert [(record.key, source.read(record)) for record in source] == [("a", b"\1"), ("b", b"\2"), ("c", b"\0")]
    with pytest.raises(SourceError, match=r"the query on .* has no primary key"):
        list(shop.source(**settings))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM images", "must begin with SELECT or WITH"),
        ("", "must begin with SELECT or WITH"),
        ("SELECTED", "must begin with SELECT or WITH"),
        ("SELECT 1; DELETE FROM images", "must be one statement"),
        ("SELECT ';'; DELETE FROM images;", "must be one statement"),
        ("SELECT 1 -- x", "must have no comments"),
        ("SELECT 1 /* x */", "must have no comments"),
        ("SELECT 'x", "open quotation marks"),
        (r"SELECT '\'; DELETE FROM images; SELECT '", "must "),
        (r"SELECT '\' || '; DELETE FROM images; SELECT '", "must "),
        ("SELECT file FROM images) AS x, (SELECT 1", "bracket without its counterpart"),
        ("SELECT (1", "bracket without its counterpart"),
    ],
)
def test_a_query_is_one_select(tmp_path: Path, query: str, message: str) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("images", ROWS, key=["id"], **NUMBERS)
    with pytest.raises(SourceError, match=re.escape(message)):
        shop.source(query=query, image="file")


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_a_function_that_writes_cannot(filled: Shop) -> None:
    filled.run("CREATE FUNCTION wipe() RETURNS text LANGUAGE sql AS $$ DELETE FROM images RETURNING file $$")
    before = filled.state()
    writable = "set_config('transaction_read_only', 'off', {})"
    for query in (
        "SELECT wipe() AS file",
        f"SELECT {writable.format('false')} || wipe() AS file",
        f"SELECT {writable.format('true')} AS file",
        "WITH gone AS (DELETE FROM images RETURNING file) SELECT file FROM gone",
        "SELECT file FROM images FOR UPDATE",
        "SELECT file INTO more FROM images",
    ):
        with pytest.raises(SourceError):
            list(filled.source(query=query, image="file"))
    assert filled.state() == before
