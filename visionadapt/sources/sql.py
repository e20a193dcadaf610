"""`SqlSource`: images that a database names, or holds."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import check_choice, flag, needing, several, text
from visionadapt.sources.database.database_url import DatabaseUrl
from visionadapt.sources.database.image_column import bytes_in, path_in, url_in
from visionadapt.sources.database.queries import TableLayout, Values, check_query, query_layout, table_layout
from visionadapt.sources.database.read_only import Database
from visionadapt.sources.database.row_keys import key_values
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.row import TableRow, texts
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found
from visionadapt.sources.web.urls import host_names

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpClient

Content = Literal["path", "blob", "url"]
_TEXTS = ("table", "query", "schema", "content", "key", "password", "root")


@dataclass(frozen=True, repr=False)
class SqlSource(TabularSource):
    """Images that a database names or holds: one row per image of a table, a view or a query.

    The database is opened read-only, every process has its own connections, and rows are streamed. Names of tables and
    columns are looked up before they are used, values are bound. Images in the database itself are fetched one by one,
    when they are read.

    Rows are sorted by the primary key, or else by `key`; without either, a table by its image column, while a query
    keeps its own order. Every row becomes a record, as those of a `TableSource` do: what cannot be used has a problem
    with the place of its row. A record's key is the cell of `key`; without it, the path of the image, or the primary
    key where the database holds the image itself.

    Args:
        url: as SQLAlchemy writes it, without a password: `sqlite:///shop.db`, `postgresql+psycopg://user@host/shop`.
            `env:NAME` takes the complete URL from the environment variable NAME.
        table: the table or view; `query` instead of it is one SELECT.
        query: one SELECT statement, without comments.
        schema: the table's schema; by default the database's own default.
        image: the column with the image's path, relative to `root` or absolute and below it, or with its bytes or its
            URL.
        content: what `image` holds, path, blob or url; by default path or blob, according to its first value.
        {columns}
        key: the column that names a row. It must be given where a query, or a table without a primary key, holds the
            images themselves.
        columns: further columns for the records.
        root: the folder of the images; by default that of an SQLite file.
        password: the name of an environment variable that holds the password.
        hosts: hosts of URLs that may be contacted, as `host` or `host:port`; by default none.
        private: whether addresses that only this machine or its network reaches are allowed.
        max_bytes: larger images are refused.

    Raises:
        SourceError: the settings or the folder are invalid. Errors of the database are raised when it is first read.
    """

    url: str
    _: KW_ONLY
    table: str | None = None
    query: str | None = None
    schema: str | None = None
    image: str
    content: Content | None = None
    label: str | Sequence[str] | None = None
    key: str | None = None
    columns: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    merge: bool = False
    root: str | Path | None = None
    password: str | None = None
    hosts: Sequence[str] = ()
    private: bool = False
    max_bytes: int = 1 << 28

    _column_options: ClassVar[tuple[str, ...]] = (*TabularSource._column_options, "key", "columns")

    def __post_init__(self) -> None:
        self._set(
            url=str(self.url),
            columns=several(self.columns),
            private=flag("private", self.private),
            **{name: text(getattr(self, name)) for name in _TEXTS},
        )
        self._normalize_columns()
        if (self.table is None) == (self.query is None):
            raise SourceError("a database needs either table= or query=; give one of them")
        if self.query is not None:
            check_query(self.query)
        if self.query is not None and self.schema is not None:
            raise SourceError("schema= goes with table=; write the schema into the query")
        if self.content is not None:
            check_choice("content", self.content, get_args(Content))
        self._set(hosts=host_names(self.hosts))
        if self.root is not None and not os.path.isdir(self.root):  # noqa: PTH112 - a Path refuses some texts
            raise SourceError(f"root={self.root} is no folder")
        self._database.check()

    def __str__(self) -> str:
        return f"{self.table or 'query'} of {self._database.url}"

    @property
    def name(self) -> str:
        """The table's name as a folder can have it."""
        return re.sub(r"[^\w.-]+", "-", self.table or "query").strip(".-") or "table"

    def resolved(self) -> SqlSource:
        """Return the same source with absolute paths."""
        root = None if self.root is None else Path(self.root).absolute()
        return dataclasses.replace(self, url=self._database.url.absolute().text, root=root)

    def read(self, record: Record) -> bytes:
        """Return the image's bytes.

        Raises:
            ImageError: the row is unusable or gone, the file is gone or leaves the folder, the image is larger than
                `max_bytes`.
            SourceError: the database cannot be read, or the host of a URL does not answer.
        """
        if record.problem is not None:
            raise ImageError(record.key, record.problem)
        if self._described.content == "path":
            return self._files.read(record.location or record.key, record.key)
        held = self._fetched(record)
        if self._described.content == "url":
            from visionadapt.sources.web.client import image_bytes

            return image_bytes(self._client, str(held), record.key, self.max_bytes)
        if not isinstance(held, (bytes, bytearray, memoryview)):
            raise ImageError(record.key, f"{self.image!r} holds no bytes")
        return bytes(held)

    def version_of(self, record: Record) -> str | None:
        """Return a file's size and times as a string, without reading it; None for images in the database itself."""
        return self._files.version(record.location or record.key) if self._described.content == "path" else None

    @cached_property
    def _database(self) -> Database:
        return Database(DatabaseUrl(self.url, self.password))

    @property
    def _files(self) -> FilesBelow:
        file = self._database.url.file
        root = self.root if self.root is not None or file is None else file.parent
        if root is None:
            raise SourceError(f"{self} names files; give the folder that their paths are relative to: root=…")
        return FilesBelow(root, self.max_bytes)

    @property
    def _client(self) -> HttpClient:
        with needing(f"{self}: content=url", "requests and tenacity", "http"):
            from visionadapt.sources.web.client import HttpClient
        return HttpClient(tuple(self.hosts), self.private)

    @property
    def _title(self) -> str:
        return self._described.layout.title

    def _known_columns(self) -> Sequence[str]:
        return self._described.layout.columns

    @cached_property
    def _described(self) -> _Described:
        """What the database says of the table or the query."""
        address = str(self._database.url)
        with self._database.connected() as connection:
            if self.query is not None:
                layout = query_layout(connection, self.query, address)
            else:
                layout = table_layout(connection, str(self.table), self.schema, address)
            self._check_columns(layout.title, layout.columns)
            content = self.content or ("blob" if layout.holds_bytes(connection, self.image) else "path")
        own = layout.primary if content != "path" else ()
        key = own if self.key is None else (self.key,)
        if content != "path" and not key:
            raise SourceError(f"{layout.title} has no primary key; name the column that tells its rows apart: key=…")
        return _Described(layout, content, key)

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        described, primary = self._described, self._described.layout.primary
        held = described.content == "blob"
        named = (None if held else self.image, *several(self.label), self.group, self.split)
        used = [name for name in named if name is not None]
        order = primary or described.key or ([] if self.query is not None else used)
        names = list(dict.fromkeys([*described.key, *primary, *used, *self.columns]))
        find = self._finder(look)
        with self._database.connected() as connection:
            rows = described.layout.rows(connection, names, order, self.image if held else None)
            for number, (values, size) in enumerate(rows, 1):
                cells = {name: texts(values[name]) for name in (*used, *self.columns)}
                row = TableRow(described.place(values, number), cells)
                key, found = find(values, size)
                yield key or f"{self.name}, {row.place}", row, found

    def _finder(self, look: bool) -> Callable[[Values, int | None], tuple[str, Found]]:
        """Return what finds a row's key and its image from its values and the image's size."""
        image, key, content = self.image, self._described.key, self._described.content
        if content == "blob":
            return lambda values, size: bytes_in(values, key, size, self.max_bytes)
        if content == "url":
            refusal = self._client.refusal
            return lambda values, _: url_in(values, image, key, refusal)
        files = self._files
        return lambda values, _: path_in(values, image, key, files, look)

    def _fetched(self, record: Record) -> Any:
        """The value of the image column in a row."""
        described = self._described
        try:
            key = dict(zip(described.key, key_values(record.location or ""), strict=True))
        except ValueError as error:
            raise ImageError(record.key, "is no row of this database") from error
        with self._database.connected() as connection:
            found = described.layout.images(connection, self.image, key, self.max_bytes)
        if not found:
            reason = f"no row with at most {self.max_bytes:,} bytes in {self.image!r} has this key"
            raise ImageError(record.key, reason)
        if len(found) > 1:
            raise ImageError(record.key, "several rows have this key")
        return found[0]


@dataclass(frozen=True)
class _Described:
    """What the database says of its table or query; the columns `key` tell its rows apart."""

    layout: TableLayout
    content: Content
    key: tuple[str, ...]

    def place(self, values: Values, number: int) -> str:
        """Where a row is: its primary key, or else its number."""
        names = self.layout.primary
        return ", ".join(f"{name} {values[name]}" for name in names) if names else f"row {number}"
