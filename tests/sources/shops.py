"""Databases for the tests of `SqlSource`: filled by SQLAlchemy, SQLite in a file and PostgreSQL on a server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.pool import NullPool

from visionadapt.sources import SqlSource

from ..postgresql import Server

PASSWORD = "VISIONADAPT_TEST_PASSWORD"
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


@dataclass(frozen=True)
class Shop:
    """A database, and a folder for its images.

    Attributes:
        url: without the password.
        settings: what a source needs as well to connect.
        owner: SQLAlchemy's URL for whoever fills it.
    """

    kind: str
    url: str
    root: Path
    settings: Mapping[str, Any]
    owner: sqlalchemy.URL = field(repr=False)

    @property
    def text(self) -> str:
        """The beginning of a settings text for the database."""
        return ", ".join([self.url, *(f"{name}={value}" for name, value in self.settings.items())])

    def source(self, **settings: Any) -> SqlSource:
        """A source on it."""
        return SqlSource(self.url, **{"root": self.root, **self.settings, **settings})

    def run(self, *statements: str) -> None:
        """Execute statements as the owner."""
        engine = sqlalchemy.create_engine(self.owner, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def fill(self, table: str, rows: Sequence[Mapping[str, Any]], key: Sequence[str] = (), **types: Any) -> None:
        """Make a table with these rows; columns of `key` are its primary key; types default to text."""
        engine = sqlalchemy.create_engine(self.owner, poolclass=NullPool)
        columns = [
            sqlalchemy.Column(name, types.get(name, sqlalchemy.Text), primary_key=name in key) for name in rows[0]
        ]
        made = sqlalchemy.Table(table, sqlalchemy.MetaData(), *columns)
        with engine.begin() as connection:
            made.create(connection)
            connection.execute(made.insert(), list(rows))

    def state(self) -> str:
        """A hash of everything that is in the database: of the file, or of every table and function."""
        if self.kind == "sqlite":
            files = sorted(path for path in self.root.parent.iterdir() if path.name.startswith("shop.db"))
            return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
        found = []
        engine = sqlalchemy.create_engine(self.owner, poolclass=NullPool)
        with engine.begin() as connection:
            names = connection.exec_driver_sql(
                "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = "
                "c.relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
                "AND relkind IN ('r', 'v', 'm') ORDER BY 1"
            ).scalars()
            for name in list(names):
                doubled = name.replace("%", "%%")
                rows = connection.exec_driver_sql(f"SELECT x::text FROM {doubled} x ORDER BY 1")
                found.append((name, list(rows.scalars())))
        return hashlib.sha256(repr(found).encode()).hexdigest()


def sqlite_shop(folder: Path) -> Shop:
    """A database in a file next to the folder of the images."""
    (folder / "photos").mkdir(exist_ok=True)
    url = f"sqlite:///{folder}/shop.db"
    return Shop("sqlite", url, folder / "photos", {}, sqlalchemy.make_url(url))


def postgresql_shop(folder: Path, server: Server) -> Shop:
    """The server's database, empty; its password is to be in the variable `PASSWORD`."""
    (folder / "photos").mkdir(exist_ok=True)
    server.clear()
    owner = sqlalchemy.make_url(server.url).set(password=server.password)
    return Shop("postgresql", server.url, folder / "photos", {"password": PASSWORD}, owner)


def numbered(count: int, **cells: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{"id": number, **{name: cell(number) for name, cell in cells.items()}} for number in range(count)]
