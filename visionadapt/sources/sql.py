"""`SqlSource`: pictures that a database names, or holds."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.database.database_url import Address
from visionadapt.sources.database.image_column import Cell, Files, Links
from visionadapt.sources.database.queries import Cells, Layout, check_query, query_layout, table_layout
from visionadapt.sources.database.read_only import Database
from visionadapt.sources.database.row_keys import unpack
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import TableRow, texts
from visionadapt.sources.tabular import Columns, TableFacts, check_column, settle
from visionadapt.sources.walk import Found
from visionadapt.sources.web.urls import allowed

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpClient

Content = Literal["path", "blob", "url"]
_TEXTS = ("table", "query", "schema", "content", "key", "password")


@dataclass(frozen=True)
class SqlSource:
    """Images that a database names or holds: a row each of a table, a view or a query.

    The database is opened read-only, every process has connections of its own, and rows are streamed. Names of tables
    and columns are looked up before they are used, values are bound. Images that the database itself holds are
    fetched one by one, when they are read.

    Rows are sorted by the primary key, or else by `key`; without either, a table by its image column, a query as it
    is sorted itself. Every row becomes a record, as those of a `TableSource` do: what cannot be used has a problem
    with the place of its row. A record's key is the cell of `key`; without it, the path of the picture, or the primary
    key where the database holds the picture itself.

    Args:
        url: as SQLAlchemy writes it, without a password: `sqlite:///shop.db`, `postgresql+psycopg://user@host/shop`.
            `env:NAME` takes the whole URL from the environment variable NAME.
        table: the table or view; `query` instead of it is one SELECT.
        query: one SELECT statement, without comments.
        schema: the table's schema; by default the database's own default.
        image: the column with the picture's path, relative to `root` or absolute and below it, or with its bytes or
            its URL.
        content: what `image` holds, path, blob or url; by default path or blob, as its first value is.
        label: the column with the label; None takes the pictures as unlabelled.
        key: the column that names a row. It must be given where a query, or a table without a primary key, holds the
            pictures themselves.
        columns: further columns that the records are to have.
        labels: other names for labels, such as `{"T-Shirt": "t-shirt"}`; the others stay as they are.
        drop: labels, as the table has them, whose rows are not used.
        group: the column of what must not be divided between training and validation.
        split: the column with train, val (validation, valid) or test, in any case.
        separator: what stands between several labels of one cell; a cell that is an array needs none.
        root: the folder of the pictures; by default that of an SQLite file.
        password: the name of an environment variable that holds the password.
        hosts: hosts of URLs that may be asked, as `host` or `host:port`; by default none.
        private: whether addresses may be asked that only this machine or its neighbours reach.
        max_bytes: a larger picture is refused.

    Raises:
        SourceError: the settings or the folder cannot be. What only the database knows is told when it is first read.
    """

    url: str
    _: KW_ONLY
    table: str | None = None
    query: str | None = None
    schema: str | None = None
    image: str
    content: Content | None = None
    label: str | None = None
    key: str | None = None
    columns: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    root: str | Path | None = None
    password: str | None = None
    hosts: Sequence[str] = ()
    private: bool = False
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        settled = {
            "url": str(self.url),
            "root": None if self.root is None else str(self.root),
            "columns": (self.columns,) if isinstance(self.columns, str) else tuple(map(str, self.columns)),
            "hosts": (self.hosts,)
            if isinstance(self.hosts, str)
            else tuple(str(host).strip().lower() for host in self.hosts),
            "private": {"true": True, "false": False}.get(str(self.private).lower(), self.private),
            **{name: None if (value := getattr(self, name)) is None else str(value) for name in _TEXTS},
            **settle(self),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        self._check()

    def __str__(self) -> str:
        return f"{self.table or 'query'} of {self._address}"

    @property
    def name(self) -> str:
        """The table's name as a folder can have it."""
        return re.sub(r"[^\w.-]+", "-", self.table or "query").strip(".-") or "table"

    def resolved(self) -> SqlSource:
        """The same source, found from any working folder."""
        root = None if self.root is None else Path(self.root).absolute()
        return dataclasses.replace(self, url=self._address.absolute().text, root=root)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that are not dropped, in natural order; one that only test rows have does not count, where there
        are others.

        Raises:
            SourceError: no row has a label that `labels` or `drop` names.
        """
        return self._columns.classes(self._facts)

    def __iter__(self) -> Iterator[Record]:
        return self._facts.told(self._records())

    def read(self, record: Record) -> bytes:
        """Return the picture's bytes.

        Raises:
            ImageError: the row cannot be used or is gone, the file is gone or leaves the folder, the picture is larger
                than `max_bytes`.
            SourceError: the database cannot be asked, or the host of a URL does not answer.
        """
        if record.problem is not None:
            raise ImageError(record.key, record.problem)
        if self._asked.content == "path":
            return self._inside.read(record.location or record.key, record.key)
        held = self._fetched(record)
        if self._asked.content == "url":
            from visionadapt.sources.web.client import picture

            return picture(self._client, str(held), record.key, self.max_bytes)
        if not isinstance(held, (bytes, bytearray, memoryview)):
            raise ImageError(record.key, f"{self.image!r} holds no bytes")
        return bytes(held)

    def version_of(self, record: Record) -> str | None:
        """What the file system says of a file, without reading it; None for bytes that the database holds."""
        return self._inside.version(record.location or record.key) if self._asked.content == "path" else None

    @property
    def _address(self) -> Address:
        return Address(self.url, self.password)

    @cached_property
    def _database(self) -> Database:
        return Database(self._address)

    @property
    def _columns(self) -> Columns:
        return Columns.of(self, self._asked.layout.title)

    @property
    def _inside(self) -> FilesBelow:
        file = self._address.file
        root = self.root if self.root is not None or file is None else file.parent
        if root is None:
            raise SourceError(f"{self} names files; give the folder that their paths are relative to: root=…")
        return FilesBelow(root, self.max_bytes)

    @property
    def _client(self) -> HttpClient:
        try:
            from visionadapt.sources.web.client import HttpClient
        except ImportError as error:
            raise SourceError(f"{self}: URLs need requests and tenacity; pip install 'visionadapt[http]'") from error
        return HttpClient(tuple(self.hosts), self.private)

    def _pictures(self) -> Files | Cell | Links:
        asked = self._asked
        if asked.content == "path":
            return Files(self._inside, self.image, asked.key)
        if asked.content == "url":
            return Links(self.image, asked.key, self._client.refusal)
        return Cell(asked.key, self.max_bytes)

    def _check(self) -> None:
        if (self.table is None) == (self.query is None):
            raise SourceError("a database needs either table= or query=; give one of them")
        if self.query is not None:
            check_query(self.query)
        if self.query is not None and self.schema is not None:
            raise SourceError("schema= goes with table=; write the schema into the query")
        if self.content not in (None, *get_args(Content)):
            raise SourceError(f"content={self.content!r} is unknown (known: {', '.join(get_args(Content))})")
        for host in self.hosts:
            allowed(host)
        if not isinstance(self.private, bool):
            raise SourceError("private= is true or false")
        if self.separator == "":
            raise SourceError("separator= must be a character or more, such as '|'")
        if self.root is not None and not os.path.isdir(self.root):  # noqa: PTH112 - a Path refuses some texts
            raise SourceError(f"root={self.root} is no folder")
        self._database.check()

    @cached_property
    def _asked(self) -> _Asked:
        """What the database says of the table or the query."""
        address = str(self._address)
        with self._database.connected() as connection:
            if self.query is not None:
                layout = query_layout(connection, self.query, address)
            else:
                layout = table_layout(connection, str(self.table), self.schema, address)
            Columns.of(self, layout.title).check(layout.columns)
            for option, name in [("key", self.key), *(("columns", name) for name in self.columns)]:
                check_column(layout.title, option, name, layout.columns)
            content = self.content or ("blob" if layout.holds_bytes(connection, self.image) else "path")
        own = layout.primary if content != "path" else ()
        key = own if self.key is None else (self.key,)
        if content != "path" and not key:
            raise SourceError(f"{layout.title} has no primary key; name the column that tells its rows apart: key=…")
        return _Asked(layout, content, key)

    @cached_property
    def _facts(self) -> TableFacts:
        return self._columns.facts(lambda: ((key, row) for key, row, _ in self._rows(look=False)))

    def _records(self) -> Iterator[tuple[str, Record]]:
        columns = self._columns
        for key, row, found in self._rows(look=True):
            yield row.place, columns.record(key, row, found)

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        """Every row under its key, and where its picture is; files are looked for where told to `look`."""
        asked, pictures, primary = self._asked, self._pictures(), self._asked.layout.primary
        held = asked.content == "blob"
        told = [name for name in (None if held else self.image, self.label, self.group, self.split) if name is not None]
        order = primary or asked.key or ([] if self.query is not None else told)
        names = list(dict.fromkeys([*asked.key, *primary, *told, *self.columns]))
        with self._database.connected() as connection:
            rows = asked.layout.rows(connection, names, order, self.image if held else None)
            for number, (cells, size) in enumerate(rows, 1):
                row = TableRow(
                    asked.place(cells, number), {name: texts(cells[name]) for name in (*told, *self.columns)}
                )
                key, found = pictures.find(cells, size, look)
                yield key or f"{self.name}, {row.place}", row, found

    def _fetched(self, record: Record) -> Any:
        """What the database has in the image column of a row."""
        asked = self._asked
        try:
            key = dict(zip(asked.key, unpack(record.location or ""), strict=True))
        except ValueError as error:
            raise ImageError(record.key, "is no row of this database") from error
        with self._database.connected() as connection:
            found = asked.layout.cells(connection, self.image, key, self.max_bytes)
        if len(found) != 1:
            what = (
                "several rows have" if found else f"no row with at most {self.max_bytes:,} bytes in {self.image!r} has"
            )
            raise ImageError(record.key, f"{what} this key")
        return found[0]


@dataclass(frozen=True)
class _Asked:
    """What the database says of its table or query; the columns `key` tell its rows apart."""

    layout: Layout
    content: Content
    key: tuple[str, ...]

    def place(self, cells: Cells, number: int) -> str:
        """Where a row stands: its primary key, or else its number."""
        names = self.layout.primary
        return ", ".join(f"{name} {cells[name]}" for name in names) if names else f"row {number}"
