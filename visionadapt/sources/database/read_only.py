"""Read-only connections to a database, with separate ones in every process."""

from __future__ import annotations

import os
import sqlite3
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from visionadapt.errors import SourceError
from visionadapt.sources.arguments import mode_of
from visionadapt.sources.database.database_url import DatabaseUrl

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_AT_CONNECT = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
_AT_BEGIN = {"postgresql": "SET TRANSACTION READ ONLY"}


class Database:
    """Connections to a database, in read-only transactions.

    A copy in another process, by pickle or by fork, opens its own; what a fork has inherited is neither used nor
    closed. Each process keeps one idle connection for the next use.
    """

    def __init__(self, url: DatabaseUrl) -> None:
        self.url = url
        self._engines: dict[int, Engine] = {}

    def __reduce__(self) -> tuple[type[Database], tuple[DatabaseUrl]]:
        return Database, (self.url,)

    def check(self) -> None:
        """Find out whether the database can be opened, without a connection to a server.

        Raises:
            SourceError: the URL is invalid, SQLAlchemy or the driver is not installed, the SQLite file is missing, or
                this kind of database cannot be opened read-only.
        """
        self.url.check()
        self._engine()

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Open a connection in a read-only transaction.

        Raises:
            SourceError: for any error of the database, in one line and without secrets.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine().connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._source_error(error) from None

    def _engine(self) -> Engine:
        process = os.getpid()
        if process not in self._engines:
            self._engines[process] = self._created()
            weakref.finalize(self, _close, self._engines[process], process)
        return self._engines[process]

    def _created(self) -> Engine:
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import QueuePool

        url, file = self.url.url(), self.url.file
        kind = url.get_backend_name()
        if kind not in _AT_CONNECT and kind not in _AT_BEGIN:
            known = ", ".join([*_AT_CONNECT, *_AT_BEGIN])
            raise SourceError(f"{self.url}: databases that can be opened read-only are {known}; {kind} is none")
        options: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 63, "pool_pre_ping": True}
        if file is not None:
            if not stat.S_ISREG(mode_of("database", file)):
                raise SourceError(f"the database {file} is no regular file")
            options["creator"] = partial(_open_sqlite, file.absolute())
        try:
            engine = create_engine(url, hide_parameters=True, **options)
        except (SQLAlchemyError, ImportError) as error:
            raise self._source_error(error) from None
        if kind in _AT_CONNECT:
            event.listen(engine, "connect", lambda connection, _: _execute(connection, _AT_CONNECT[kind]))
        else:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(_AT_BEGIN[kind]))
        return engine

    def _source_error(self, error: Exception) -> SourceError:
        if isinstance(error, ImportError):
            package = "psycopg[binary]" if error.name == "psycopg" else error.name
            return SourceError(f"{self.url}: its driver is not installed; pip install {package!r}")
        return SourceError(f"{self.url}: {self.url.hide(str(getattr(error, 'orig', None) or error))}")


def _open_sqlite(path: Path) -> sqlite3.Connection:
    """Open an SQLite file that exists, read-only; text that is not UTF-8 is read with escapes."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)
    connection.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
    return connection


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _close(engine: Engine, process: int) -> None:
    engine.dispose(close=os.getpid() == process)
