"""What a pull has found out so far, in an SQLite file: a pull that is killed at any moment goes on from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionadapt.core.records import Record
from visionadapt.errors import RunError, SourceError
from visionadapt.sources.pulled.rows import FrozenRow

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, version TEXT, sha256 TEXT, size INTEGER, width INTEGER,
    height INTEGER, mode TEXT, problem TEXT, fetched_at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (key TEXT PRIMARY KEY, part TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listed (place INTEGER PRIMARY KEY, key TEXT UNIQUE, labels TEXT, grouped TEXT, split TEXT,
    problem TEXT, columns TEXT);
"""
_ROWS = """
SELECT listed.key, COALESCE(facts.sha256, ''), facts.size, facts.width, facts.height, facts.mode, listed.labels,
    listed.grouped, COALESCE(listed.split, parts.part), COALESCE(listed.problem, facts.problem), facts.fetched_at,
    listed.columns
FROM listed LEFT JOIN facts ON facts.key = listed.key AND listed.problem IS NULL
    LEFT JOIN parts ON parts.key = listed.key ORDER BY listed.place
"""


@dataclass(frozen=True)
class Fact:
    """What came of fetching one row's bytes; fields as in `FrozenRow`, and the version that its source gave it."""

    version: str | None = None
    sha256: str = ""
    size: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    problem: str | None = None
    fetched_at: int | None = None


class Journal:
    """Facts by key, which stay; and the rows of the source as they were listed last.

    Raises:
        RunError: the file cannot be used; every method raises it too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._open()
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._open()

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Keep what was found, and close the file."""
        self.commit()
        self._connection.close()

    def commit(self) -> None:
        """Keep what was found."""
        try:
            self._connection.commit()
        except sqlite3.Error as error:
            raise self._told(error) from error

    def value(self, name: str) -> str | None:
        """A fact about the whole; None where it is not known."""
        row = self._one("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    def set_value(self, name: str, value: str) -> None:
        """Remember a fact about the whole."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def fact(self, key: str) -> Fact | None:
        """What is known of a row's bytes."""
        row = self._one(
            "SELECT version, sha256, size, width, height, mode, problem, fetched_at FROM facts WHERE key = ?", (key,)
        )
        return None if row is None else Fact(*row)

    def remember(self, key: str, fact: Fact) -> None:
        """Keep what is known of a row's bytes."""
        values = (key, *(getattr(fact, name) for name in Fact.__dataclass_fields__))
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def take_in(self, rows: Iterable[FrozenRow]) -> None:
        """Take what a manifest says for known, where nothing newer is; its parts always."""
        for row in rows:
            fact = (row.key, None, row.sha256, row.size, row.width, row.height, row.mode, row.problem, row.fetched_at)
            self._run("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", fact)
            if row.split is not None:
                self._run("INSERT OR REPLACE INTO parts VALUES (?, ?)", (row.key, row.split))

    def begin_listing(self) -> None:
        """Forget which rows the source had."""
        self._run("DELETE FROM listed", ())

    def list_row(self, record: Record) -> None:
        """Add the next row of the source; raise SourceError where its key was there already."""
        labels, columns = json.dumps(record.labels), json.dumps(dict(record.columns))
        values = (record.key, labels, record.group, record.split, record.problem, columns)
        try:
            self._connection.execute(
                "INSERT INTO listed (key, labels, grouped, split, problem, columns) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        except sqlite3.IntegrityError as error:
            raise SourceError(f"the source has two rows with the key {record.key!r}; give each its own") from error
        except sqlite3.Error as error:
            raise self._told(error) from error

    def is_listed(self, key: str) -> bool:
        """Whether the source has a row with this key."""
        return self._one("SELECT 1 FROM listed WHERE key = ?", (key,)) is not None

    def rows(self) -> Iterator[FrozenRow]:
        """The rows as listed, with what is known of each."""
        for row in self._all(_ROWS):
            key, sha256, size, width, height, mode, labels, group, split, problem, fetched_at, columns = row
            yield FrozenRow(
                *(key, sha256, size, width, height, mode, tuple(json.loads(labels))),
                *(group, split, problem, fetched_at, json.loads(columns)),
            )

    def placed(self) -> Iterator[tuple[str, str | None, str | None, str | None]]:
        """Key, group, first label and part of every row that can be used."""
        query = """SELECT listed.key, grouped, json_extract(labels, '$[0]'), COALESCE(split, part) FROM listed
            LEFT JOIN parts ON parts.key = listed.key ORDER BY listed.place"""
        yield from self._all(query)

    def place(self, parts: Iterable[tuple[str, str]]) -> None:
        """Settle the parts of rows, for good."""
        try:
            self._connection.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?)", parts)
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _run(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _one(self, query: str, values: tuple[Any, ...]) -> Any:
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _all(self, query: str) -> Iterator[Any]:
        try:
            with closing(self._connection.execute(query)) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _told(self, error: sqlite3.Error) -> RunError:
        advice = "remove it" if type(error) is sqlite3.DatabaseError else "see that the disk has room"
        return RunError(f"{self._path} cannot be used ({error}); {advice}, and pull again")
