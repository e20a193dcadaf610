"""The journal of a pull, in an SQLite file: a pull that is killed at any moment resumes from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
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
_ASSIGNABLE = """
SELECT listed.key, grouped, json_extract(labels, '$[0]'), COALESCE(split, part)
FROM listed LEFT JOIN parts ON parts.key = listed.key ORDER BY listed.place
"""


@dataclass(frozen=True)
class Fetched:
    """The outcome of fetching a row's bytes; fields as in `FrozenRow`, and the version that the source reported."""

    version: str | None = None
    sha256: str = ""
    size: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    problem: str | None = None
    fetched_at: int | None = None


class Journal:
    """What is known of each key, for good; and the rows of the source as they were listed last.

    Every method raises RunError if the file cannot be used.
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
        """Save what was found, and close the file."""
        self.commit()
        self._connection.close()

    def commit(self) -> None:
        """Save what was found."""
        with self._usable():
            self._connection.commit()

    def value(self, name: str) -> str | None:
        """Return a value stored under a name; None where there is none."""
        row = self._one("SELECT value FROM meta WHERE name = ?", name)
        return None if row is None else str(row[0])

    def set_value(self, name: str, value: str) -> None:
        """Store a value under a name."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def fetched(self, key: str) -> Fetched | None:
        """Return what is known of a row's bytes."""
        row = self._one("SELECT * FROM facts WHERE key = ?", key)
        return None if row is None else Fetched(*row[1:])

    def remember(self, key: str, outcome: Fetched) -> None:
        """Store what is known of a row's bytes."""
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", key, *astuple(outcome))

    def take_in(self, rows: Iterable[FrozenRow]) -> None:
        """Store what a manifest knows where nothing newer is known, and its splits in any case."""
        for row in rows:
            known = Fetched(None, row.sha256, row.size, row.width, row.height, row.mode, row.problem, row.fetched_at)
            self._run("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row.key, *astuple(known))
            if row.split is not None:
                self._run("INSERT OR REPLACE INTO parts VALUES (?, ?)", row.key, row.split)

    def begin_listing(self) -> None:
        """Forget which rows the source had."""
        self._run("DELETE FROM listed")

    def list_row(self, record: Record) -> None:
        """Add the next row of the source; raise SourceError where its key was there already."""
        labels, columns = json.dumps(record.labels), json.dumps(dict(record.columns))
        try:
            self._run(
                "INSERT INTO listed (key, labels, grouped, split, problem, columns) VALUES (?, ?, ?, ?, ?, ?)",
                *(record.key, labels, record.group, record.split, record.problem, columns),
            )
        except sqlite3.IntegrityError as error:
            raise SourceError(f"the source has two rows with the key {record.key!r}; give each its own") from error

    def is_listed(self, key: str) -> bool:
        """Return whether the source has a row with this key."""
        return self._one("SELECT 1 FROM listed WHERE key = ?", key) is not None

    def rows(self) -> Iterator[FrozenRow]:
        """Yield the rows as listed, with what is known of each."""
        for row in self._all(_ROWS):
            cells = [*row[:6], tuple(json.loads(row[6])), *row[7:11], json.loads(row[11])]
            yield FrozenRow(*cells)

    def assignable(self) -> Iterator[tuple[str, str | None, str | None, str | None]]:
        """Yield key, group, first label and split of every row."""
        yield from self._all(_ASSIGNABLE)

    def assign(self, splits: Iterable[tuple[str, str]]) -> None:
        """Store the splits of rows by their keys; a row keeps the one that it has."""
        with self._usable():
            self._connection.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?)", splits)

    def _run(self, statement: str, *values: Any) -> None:
        with self._usable():
            self._connection.execute(statement, values)

    def _one(self, query: str, *values: Any) -> Any:
        with self._usable():
            return self._connection.execute(query, values).fetchone()

    def _all(self, query: str) -> Iterator[Any]:
        with self._usable(), closing(self._connection.execute(query)) as rows:
            yield from rows

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn errors of SQLite into a RunError, but for a key that is there twice."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            advice = "remove it" if type(error) is sqlite3.DatabaseError else "see that the disk has room"
            raise RunError(f"{self._path} cannot be used ({error}); {advice}, and pull again") from error
