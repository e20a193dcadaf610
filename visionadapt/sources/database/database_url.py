"""Where a database is, from texts that hold no secret: those are in environment variables, and read when needed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from visionadapt.errors import SourceError

if TYPE_CHECKING:
    from sqlalchemy import URL

_ENVIRONMENT = "env:"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"pass(?!file)|pwd|secret|token|odbc_connect", re.IGNORECASE)
_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(.+)", re.DOTALL)
_HIDDEN = "***"


@dataclass(frozen=True)
class Address:
    """A database by its URL.

    Attributes:
        text: the URL as SQLAlchemy writes it, without a password; or `env:NAME`, where the variable NAME holds the
            whole URL, with or without one.
        password: the environment variable that holds the password; None for none.
    """

    text: str
    password: str | None = None

    def __str__(self) -> str:
        """What the database is called in messages: the file of an SQLite database, otherwise the text."""
        match = _SQLITE.fullmatch(self.text)
        return match[1] if match else self.text

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for all others."""
        match = _SQLITE.fullmatch(self._whole())
        return Path(match[1]) if match else None

    def absolute(self) -> Address:
        """The same database, found from any working folder."""
        match = _SQLITE.fullmatch(self.text)
        return Address(f"sqlite:///{Path(match[1]).absolute()}", self.password) if match else self

    def check(self) -> None:
        """Raise SourceError where the URL cannot be read or holds a secret, or a variable is not set."""
        if self.password is not None and not _VARIABLE.fullmatch(self.password):
            raise SourceError("password= must be the name of an environment variable, not the password itself")
        self.url()
        if self.text.startswith(_ENVIRONMENT):
            return
        given = _parsed(self.text, "the URL of the database")
        if given.password or any(_SECRET.search(name) for name in given.query):
            raise SourceError(
                "the URL of the database holds a secret, which files and messages would show: leave the password out "
                "and name an environment variable that holds it, such as password=DATABASE_PASSWORD"
            )

    def url(self) -> URL:
        """The URL with its password, which must be kept in no setting; raise SourceError where there is none."""
        name = self.text if self.text.startswith(_ENVIRONMENT) else "the URL of the database"
        url = _parsed(self._whole(), name)
        return url if self.password is None else url.set(password=_value(self.password, "password="))

    def hide(self, text: str) -> str:
        """Return the first line of a text without any secret of this database.

        Of a URL from the environment no part is left: in one that is written wrongly, the host can be half a password.
        """
        url = self.url()
        secrets = [url.password, *(str(value) for name, value in url.query.items() if _SECRET.search(name))]
        own = self.text.startswith(_ENVIRONMENT)
        if own:
            secrets.append(self._whole())
        spellings = {form for value in secrets if value for form in (value, quote(value, ""), quote_plus(value))}
        for spelling in sorted(spellings, key=len, reverse=True):
            text = text.replace(spelling, _HIDDEN)
        for part in filter(None, (url.username, url.host, url.database) if own else ()):
            text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", _HIDDEN, text)
        return next(iter(text.strip().splitlines()), "")

    def _whole(self) -> str:
        if not self.text.startswith(_ENVIRONMENT):
            return self.text
        return _value(self.text.removeprefix(_ENVIRONMENT), "the database's URL")


def _value(variable: str, what: str) -> str:
    """What a variable holds; its name is shown nowhere, since it may be a secret given by mistake."""
    value = os.environ.get(variable, "")
    if not value:
        raise SourceError(f"the environment variable that is named for {what} is not set")
    return value


def _parsed(text: str, name: str) -> URL:
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise SourceError("a database needs SQLAlchemy; pip install 'visionadapt[sql]'") from error
    try:
        url = make_url("sqlite://" if _SQLITE.fullmatch(text) else text)
    except (ArgumentError, ValueError):
        raise SourceError(f"{name} cannot be read; write it like sqlite:///shop.db or postgresql://host/shop") from None
    if url.get_backend_name() == "sqlite" and not _SQLITE.fullmatch(text):
        raise SourceError(f"{name} names no file; write it like sqlite:///shop.db")
    return url
