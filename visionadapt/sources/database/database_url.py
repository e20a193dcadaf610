"""The URL of a database, without secrets: those are in environment variables, and read when needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visionadapt.errors import SourceError
from visionadapt.sources.arguments import needing
from visionadapt.sources.credentials import check_variable, hiding, value_of

if TYPE_CHECKING:
    from sqlalchemy import URL

_ENVIRONMENT = "env:"
_SECRET = re.compile(r"pass(?!file)|pwd|secret|token|odbc_connect", re.IGNORECASE)
_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(.+)", re.DOTALL)


@dataclass(frozen=True)
class DatabaseUrl:
    """A database by its URL.

    Attributes:
        text: the URL as SQLAlchemy writes it, without a password; or `env:NAME`, where the variable NAME holds the
            complete URL, with or without one.
        password: the environment variable that holds the password; None for none.
    """

    text: str
    password: str | None = None

    def __str__(self) -> str:
        """What messages call the database: the file of an SQLite database, otherwise the text."""
        match = _SQLITE.fullmatch(self.text)
        return match[1] if match else self.text

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for all others."""
        match = _SQLITE.fullmatch(self._complete())
        return Path(match[1]) if match else None

    def absolute(self) -> DatabaseUrl:
        """Return the same database with an absolute path."""
        match = _SQLITE.fullmatch(self.text)
        return DatabaseUrl(f"sqlite:///{Path(match[1]).absolute()}", self.password) if match else self

    def check(self) -> None:
        """Raise SourceError where the URL is invalid or holds a secret, or a variable is not set."""
        if self.password is not None:
            check_variable("password=", self.password)
        self.url()
        if self._from_environment:
            return
        given = _parsed(self.text, "the URL of the database")
        if given.password or any(_SECRET.search(name) for name in given.query):
            raise SourceError(
                "the URL of the database holds a secret, which files and messages would show: leave the password out "
                "and name an environment variable that holds it, such as password=DATABASE_PASSWORD"
            )

    def url(self) -> URL:
        """Return the URL with its password, which must not be stored; raise SourceError where there is none."""
        url = _parsed(self._complete(), self.text if self._from_environment else "the URL of the database")
        return url if self.password is None else url.set(password=value_of("password=", self.password))

    def hide(self, text: str) -> str:
        """Return the first line of a string without any secret of this database.

        Of a URL from the environment no part remains: in one that is written wrongly, the host can be half a password.
        """
        url = self.url()
        secrets = [url.password, *(str(value) for name, value in url.query.items() if _SECRET.search(name))]
        parts: list[str | None] = []
        if self._from_environment:
            secrets.append(self._complete())
            parts = [url.username, url.host, url.database]
        text = hiding(filter(None, secrets))(text)
        for part in filter(None, parts):
            text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "***", text)
        return next(iter(text.strip().splitlines()), "")

    @property
    def _from_environment(self) -> bool:
        return self.text.startswith(_ENVIRONMENT)

    def _complete(self) -> str:
        return value_of("env:", self.text.removeprefix(_ENVIRONMENT)) if self._from_environment else self.text


def _parsed(text: str, name: str) -> URL:
    with needing("a database", "SQLAlchemy", "sql"):
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    try:
        url = make_url("sqlite://" if _SQLITE.fullmatch(text) else text)
    except (ArgumentError, ValueError):
        raise SourceError(f"{name} cannot be read; write it like sqlite:///shop.db or postgresql://host/shop") from None
    if url.get_backend_name() == "sqlite" and not _SQLITE.fullmatch(text):
        raise SourceError(f"{name} names no file; write it like sqlite:///shop.db")
    return url
