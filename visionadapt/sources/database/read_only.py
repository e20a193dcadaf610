"""A database that is opened for reading alone, with connections of its own in every process."""

from __future__ import annotations

import os
import sqlite3
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from visionadapt.errors import SourceError
from visionadapt.sources.database.database_url import Address

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_AT_CONNECT = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
_AT_BEGIN = {"postgresql": "SET TRANSACTION READ ONLY"}


class Database:
    """Connections to the database at an address, in read-only transactions.

    A copy in another process, by pickle or by fork, opens its own; what a fork has inherited is neither used nor
    closed. One idle connection a process is kept for the next use.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._engines: dict[int, Engine] = {}

    def __reduce__(self) -> tuple[type[Database], tuple[Address]]:
        return Database, (self.address,)

    def check(self) -> None:
        """Find out, without asking the database, whether it can be opened.

        Raises:
            SourceError: the address cannot be used, SQLAlchemy or the driver is not installed, the SQLite file is
                missing, or this kind of database cannot be opened read-only.
        """
        self.address.check()
        self._engine()

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection in a read-only transaction.

        Raises:
            SourceError: whatever the database says, in one line and without secrets.
        """
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine().connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._told(error) from None

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

        url, file = self.address.url(), self.address.file
        kind = url.get_backend_name()
        if kind not in _AT_CONNECT and kind not in _AT_BEGIN:
            known = ", ".join([*_AT_CONNECT, *_AT_BEGIN])
            raise SourceError(f"{self.address}: databases that can be opened read-only are {known}; {kind} is none")
        options: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 63, "pool_pre_ping": True}
        if file is not None:
            _check_file(file)
            options["creator"] = _Open(str(file.absolute()))
        try:
            engine = create_engine(url, hide_parameters=True, **options)
        except (SQLAlchemyError, ImportError) as error:
            raise self._told(error) from None
        if kind in _AT_CONNECT:
            event.listen(engine, "connect", lambda connection, _: _execute(connection, _AT_CONNECT[kind]))
        else:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(_AT_BEGIN[kind]))
        return engine

    def _told(self, error: Exception) -> SourceError:
        if isinstance(error, ImportError):
            package = "psycopg[binary]" if error.name == "psycopg" else error.name
            return SourceError(f"{self.address}: its driver is not installed; pip install {package!r}")
        return SourceError(f"{self.address}: {self.address.hide(str(getattr(error, 'orig', None) or error))}")


@dataclass(frozen=True)
class _Open:
    """Opens an SQLite file that exists, read-only; a text that is no UTF-8 is read with escapes."""

    path: str

    def __call__(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True, check_same_thread=False)
        connection.text_factory = _decoded
        return connection


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _close(engine: Engine, process: int) -> None:
    engine.dispose(close=os.getpid() == process)


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise SourceError(f"no such database: {path}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"the database {path} cannot be read ({getattr(error, 'strerror', error)})") from error
    if not stat.S_ISREG(mode):
        raise SourceError(f"the database {path} is no regular file")
