"""Databases are opened with secrets from environment variables, which no message, file or copy of a source shows."""

from __future__ import annotations

import os
import pickle
import re
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.core import spec
from visionadapt.errors import SourceError, UsageError
from visionadapt.sources import SqlSource

from ..conftest import SMALL_BACKBONE
from ..postgresql import Server
from .shops import PASSWORD, Shop, postgresql_shop, sqlite_shop

CANARY = "c4n4ry:p@ss/word%21"
QUOTED = "c4n4ry%3Ap%40ss%2Fword%2521"


def shown(call: Callable[[], object], kind: type[Exception] = UsageError) -> str:
    """Return the one-line message of a failing call, after its traceback has been searched for the password."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    everything = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    assert "c4n4ry" not in everything
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://user:{QUOTED}@localhost/shop",
        "postgresql+psycopg://user@localhost/shop?password=c4n4ry",
        "postgresql+psycopg://user@localhost/shop?sslpassword=c4n4ry&connect_timeout=1",
        "mysql+pymysql://:c4n4ry@localhost/shop",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dc4n4ry",
    ],
)
def test_a_url_with_a_password_is_refused(url: str) -> None:
    said = shown(lambda: SqlSource(url, table="images", image="file", root="/"))
    assert "holds a secret" in said and "password=DATABASE_PASSWORD" in said
    for text in (f"sql('{url}', table=images, image=file)", f"sql('{url}', tabel=images, image=file)"):
        shown(lambda text=text: spec.parse(text, "source"))


@pytest.mark.parametrize("text", ["sql({}, tabel=x, image=file)", "sql({}, table=x", "sqll({})", "sql({}, table=x)"])
def test_a_url_with_a_password_is_shown_by_no_command(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    url = f"postgresql://user:{QUOTED}@localhost/shop"
    assert shell.run(app, ["train", "--data", text.format(url)]) == 2
    said = capfd.readouterr()
    assert "c4n4ry" not in said.out + said.err and said.err.startswith("error: ")


@pytest.mark.parametrize("url", [f"postgresql://user:{CANARY}@localhost:port/shop", "c4n4ry", "sqlite+x://c4n4ry@x/y"])
def test_a_url_that_cannot_be_read_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", url)
    for given in (url, "env:SHOP_URL"):
        said = shown(lambda given=given: list(SqlSource(given, table="x", image="y", root="/")))
        assert re.search("; write it like sqlite:///shop.db|holds a secret|^env:SHOP_URL: ", said)
        assert "ss" not in said.replace("messages", "").replace("password", "").replace("PASSWORD", "")


def test_variables_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("c4n4ry", raising=False)
    unset, url = {"table": "x", "image": "y"}, "env:" + "yr4n4c"[::-1]
    with_password = {"password": "c4n4ry", "table": "x", "image": "y"}
    said = shown(lambda: SqlSource("postgresql+psycopg://user@localhost/shop", **with_password))
    assert said == "the environment variable that password= names is not set; set it to the secret"
    said = shown(lambda: SqlSource(url, **unset))
    assert said == "the environment variable that env: names is not set; set it to the secret"
    with_password["password"] = CANARY
    said = shown(lambda: SqlSource("postgresql+psycopg://user@localhost/shop", **with_password))
    assert said.startswith("password= must be the name of an environment variable, not the secret itself; ")


def test_a_server_that_refuses(tmp_path: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, CANARY)
    source = SqlSource(postgresql.url, table="x", image="y", root=tmp_path, password=PASSWORD)
    assert "password authentication failed" in shown(lambda: list(source))
    monkeypatch.setenv("SHOP_URL", postgresql.url.replace("owner@", f"owner:{QUOTED}@"))
    source = SqlSource("env:SHOP_URL", table="x", image="y", root=tmp_path)
    said = shown(lambda: list(source))
    assert said.startswith("env:SHOP_URL: ") and "password authentication failed" in said
    monkeypatch.setenv("SHOP_URL", f"postgresql+psycopg://owner:{QUOTED}@127.0.0.1:1/c4n4ry")
    assert "refused" in shown(lambda: list(SqlSource("env:SHOP_URL", table="x", image="y", root=tmp_path)))


@pytest.fixture
def shop(postgresql: Server, tmp_path: Path, tinted_folder: Callable[..., Path]) -> Shop:
    """Images of two classes, named in PostgreSQL; the owner's password is the canary."""
    shop = postgresql_shop(tmp_path, postgresql)
    root = tinted_folder("photos/of", count=6)
    shop.fill(
        "images",
        [{"file": str(path.relative_to(root)), "label": path.parent.name} for path in sorted(root.glob("*/*.png"))],
    )
    shop.run(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'visitor') THEN DROP OWNED BY visitor; "
        "DROP ROLE visitor; END IF; END $$",
        f"CREATE ROLE visitor LOGIN PASSWORD '{CANARY}'".replace("%", "%%"),
        "GRANT SELECT ON images TO visitor",
        "GRANT USAGE ON SCHEMA public TO visitor",
    )
    return shop


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_no_file_of_a_run_holds_the_password(
    shop: Shop,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    whole: bool,
) -> None:
    visitor = shop.url.replace("owner@", "visitor@")
    if whole:
        monkeypatch.setenv("SHOP_URL", visitor.replace("visitor@", f"visitor:{QUOTED}@"))
        where = "env:SHOP_URL"
    else:
        monkeypatch.setenv(PASSWORD, CANARY)
        where = f"{visitor}, password={PASSWORD}"
    text = f"sql({where}, table=images, image=file, label=label, root={shop.root / 'of'})"
    small = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--epochs", "1")
    run = tmp_path / "run"
    assert shell.run(app, ["train", "--data", text, "--out", str(run), *small]) == 0
    (run / "summary.json").unlink()
    assert shell.run(app, ["train", "--resume", str(run), "--trust-run", "--workers", "2"]) == 0
    said = capfd.readouterr()
    assert "c4n4ry" not in said.out + said.err
    written = [path for folder in (run, own_cache) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 5 and not [path for path in written if b"c4n4ry" in path.read_bytes()]
    assert f"sql({where.partition(',')[0]}, table=images, " in (run / "config.json").read_text()

    source = spec.parse(text, "source")
    assert isinstance(source, SqlSource) and len(list(source)) == 12
    for copy in (
        pickle.dumps(source),
        repr(source).encode(),
        str(source).encode(),
        spec.format(source, "source").encode(),
    ):
        assert b"c4n4ry" not in copy


def test_databases_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "text.db").write_text("no database " * 100)
    wrong = {
        "sqlite:///none.db": "no such database: none.db",
        f"sqlite:///{tmp_path}": "is no regular file",
        f"sqlite:///{tmp_path}/pipe.db": "is no regular file",
        f"sqlite:///{tmp_path}/text.db?mode=rw": "no such database",
        f"sqlite:///file:{tmp_path}/text.db?mode=rw&uri=true": "no such database",
        "sqlite://": "names no file; write it like sqlite:///shop.db",
        "sqlite:///:memory:": "no such database: :memory:",
        "sqlite:///" + "x" * 5000: "File name too long",
        "sqlite:///\0": "null",
        "oracle://user@host/db": "databases that can be opened read-only are",
        "duckdb:///x.db": "databases that can be opened read-only are",
        "mysql+pymysql://user@host/db": "its driver is not installed; pip install 'pymysql'",
    }
    for url, message in wrong.items():
        with pytest.raises(SourceError, match=re.escape(message)) as caught:
            SqlSource(url, table="images", image="file")
        assert "\n" not in str(caught.value)
    source = SqlSource(f"sqlite:///{tmp_path}/text.db", table="images", image="file")
    with pytest.raises(SourceError, match=r"text\.db: file is not a database"):
        list(source)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs either table= or query="),
        ({"table": "x", "query": "SELECT 1"}, "needs either table= or query="),
        ({"query": "SELECT 1", "schema": "x"}, "schema= goes with table="),
        ({"table": "x", "content": "urls"}, "content='urls' is unknown (known: path, blob"),
        ({"table": "x", "separator": ""}, "separator= must be a character or more"),
        ({"table": "x", "root": "/no/such"}, "root=/no/such is no folder"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("x", [{"y": "1"}])
    with pytest.raises(SourceError, match=re.escape(message)):
        SqlSource(shop.url, image="y", **settings)


def test_a_server_needs_a_root_for_paths(postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, postgresql.password)
    shop = postgresql_shop(tmp_path, postgresql)
    shop.fill("x", [{"y": "1"}])
    with pytest.raises(SourceError, match="root="):
        list(shop.source(table="x", image="y", root=None))


def test_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("images", [{"file": "a.jpg"}])
    (tmp_path / "a.jpg").write_bytes(b"beside the database")
    (shop.root / "a.jpg").write_bytes(b"in its root")
    monkeypatch.chdir(tmp_path)
    for settings, wanted in (({}, b"beside the database"), ({"root": "photos"}, b"in its root")):
        monkeypatch.chdir(tmp_path)
        near = SqlSource("sqlite:///shop.db", table="images", image="file", **settings)
        far = near.resolved()
        assert far.url == f"sqlite:///{tmp_path}/shop.db" and far.resolved() == far
        monkeypatch.chdir("/")
        (record,) = far
        assert far.read(record) == wanted


def test_a_database_that_another_program_writes_to_is_read_without_a_change(tmp_path: Path) -> None:
    writer = sqlite3.connect(tmp_path / "shop.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, data BLOB)")
    writer.execute("INSERT INTO images VALUES (1, X'01')")
    writer.commit()
    source = SqlSource(f"sqlite:///{tmp_path}/shop.db", table="images", image="data")
    (record,) = source
    assert source.read(record) == b"\1"
    before = (tmp_path / "shop.db").read_bytes()
    writer.execute("INSERT INTO images VALUES (2, X'02')")
    assert len(list(source)) == 1
    writer.commit()
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(record) for record in again] == [b"\1", b"\2"]
    assert (tmp_path / "shop.db").read_bytes() == before
    writer.close()


@pytest.mark.slow
def test_without_the_libraries_the_message_says_what_to_install(tmp_path: Path) -> None:
    sqlite_shop(tmp_path).fill("x", [{"y": "1"}])
    code = (
        "import sys; sys.modules['{}'] = None\n"
        "from visionadapt import sources\n"
        "try:\n    sources.SqlSource('{}', table='x', image='y')\n"
        "except sources.sql.SourceError as error:\n    print(error)"
    )
    for module, url, wanted in (
        ("sqlalchemy", f"sqlite:///{tmp_path}/shop.db", "a database needs SQLAlchemy; pip install 'visionadapt[sql]'"),
        (
            "psycopg",
            "postgresql+psycopg://u@h/d",
            "postgresql+psycopg://…@h/d: its driver is not installed; pip install 'psycopg[binary]'",
        ),
    ):
        command_line = [sys.executable, "-c", code.format(module, url)]
        said = subprocess.run(command_line, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == wanted
    loaded = "from visionadapt import sources; import sys; print('sqlalchemy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
