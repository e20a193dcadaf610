"""Queries to a database: with names from its own schema and with bound values, never with pasted text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionadapt.core.spec import suggestion
from visionadapt.errors import SourceError

if TYPE_CHECKING:
    from sqlalchemy import ColumnClause, Connection, FromClause, TextClause

Values = Mapping[str, Any]

_QUOTED = re.compile(r"'(?:[^'\\]|'')*'|\"(?:[^\"\\]|\"\")*\"|`[^`\\]*`")
_MOST_NAMES = 20
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class TableLayout:
    """A table, or a query that is one SELECT, as the database itself describes it.

    Attributes:
        title: its name in messages.
        columns: names of its columns.
        primary: names of the columns of its primary key; none for a view, a query, and a table without one.
        table, schema, query: the table's name and place, or the query's text.
    """

    title: str
    columns: tuple[str, ...]
    primary: tuple[str, ...] = ()
    table: str | None = None
    schema: str | None = None
    query: str | None = None

    def rows(
        self, connection: Connection, names: Sequence[str], order: Sequence[str], sized: str | None = None
    ) -> Iterator[tuple[Values, int | None]]:
        """Stream the values of some columns of every row, and the number of bytes in the column `sized`.

        Rows are sorted by the columns `order`; without any, and without `sized`, a query keeps its own order.
        """
        from sqlalchemy import func, null, select

        streamed = {"yield_per": _ROWS_AT_ONCE}
        if self.query is not None and not order:
            with connection.execute(_text(self.query), execution_options=streamed) as rows:
                places = [list(rows.keys()).index(name) for name in names]
                for values in rows:
                    yield {name: values[place] for name, place in zip(names, places, strict=True)}, None
            return
        found = self._selectable()
        size = null() if sized is None else func.length(found.c[sized])
        statement = select(size, *(found.c[name] for name in names)).order_by(*(found.c[name] for name in order))
        with connection.execute(statement, execution_options=streamed) as rows:
            for count, *cells in rows:
                yield dict(zip(names, cells, strict=True)), count

    def images(self, connection: Connection, image: str, key: Values, most: int) -> list[Any]:
        """Return what `image` holds in the rows with this key, two at most, and nothing longer than `most`."""
        from sqlalchemy import bindparam, func, select
        from sqlalchemy.types import NullType

        found = self._selectable()
        values = (
            found.c[name] == bindparam(f"key_{number}", value, NullType())
            for number, (name, value) in enumerate(key.items())
        )
        small = func.length(found.c[image]) <= bindparam("most", most, NullType())
        return list(connection.execute(select(found.c[image]).where(*values, small).limit(2)).scalars())

    def holds_bytes(self, connection: Connection, image: str) -> bool:
        """Whether the first value of `image` that is not NULL is bytes rather than text."""
        from sqlalchemy import select

        found = self._selectable()
        order = [found.c[name] for name in self.primary]
        statement = select(found.c[image]).where(found.c[image].is_not(None)).order_by(*order).limit(1)
        return isinstance(connection.execute(statement).scalar(), (bytes, bytearray, memoryview))

    def _selectable(self) -> FromClause:
        from sqlalchemy import column, table

        columns: list[ColumnClause[Any]] = [column(name) for name in dict.fromkeys(self.columns)]
        if self.query is not None:
            return _text(self.query).columns(*columns).subquery("found")
        return table(str(self.table), *columns, schema=self.schema)


def table_layout(connection: Connection, table: str, schema: str | None, database: str) -> TableLayout:
    """Look up a table or a view; raise SourceError where the database has none of this name."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import SAWarning

    inspector = inspect(connection)
    if schema is not None:
        _check_name("schema", schema, inspector.get_schema_names(), database)
    tables = inspector.get_table_names(schema)
    _check_name("table", table, [*tables, *_views(inspector, connection.dialect.name, schema)], database)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        columns = tuple(str(column["name"]) for column in inspector.get_columns(table, schema))
    primary = inspector.get_pk_constraint(table, schema)["constrained_columns"] if table in tables else ()
    return TableLayout(f"table {table!r} of {database}", columns, tuple(primary), table, schema)


def query_layout(connection: Connection, query: str, database: str) -> TableLayout:
    """Ask the database which columns a query has."""
    from sqlalchemy import select
    from sqlalchemy import text as plain

    found = connection.execute(select(plain("*")).select_from(_text(query).columns().subquery("found")).limit(0))
    return TableLayout(f"the query on {database}", tuple(found.keys()), query=query)


def check_query(query: str) -> None:
    """Raise SourceError unless a query is a single SELECT that could be put in brackets."""
    code = _QUOTED.sub(" ", query)
    if not re.match(r"\s*(SELECT|WITH)\b", code, re.IGNORECASE):
        raise SourceError("query= must begin with SELECT or WITH: a database is only read")
    if ";" in code.rstrip().removesuffix(";"):
        raise SourceError("query= must be one statement; remove what follows ';'")
    if re.search(r"['\"`\\]|--|/\*", code):
        raise SourceError("query= must have no comments, backslashes or open quotation marks; leave them out")
    depth = 0
    for bracket in re.findall(r"[()]", code):
        depth += 1 if bracket == "(" else -1
        if depth < 0:
            break
    if depth:
        raise SourceError("query= has a bracket without its counterpart; correct it")


def _text(query: str) -> TextClause:
    """The query as SQLAlchemy takes it, with colons that begin no parameter."""
    from sqlalchemy import text

    return text(query.rstrip().removesuffix(";").replace(":", r"\:"))


def _views(inspector: Any, kind: str, schema: str | None) -> list[str]:
    views: list[str] = inspector.get_view_names(schema)
    if kind == "postgresql":
        return [*views, *inspector.get_materialized_view_names(schema), *inspector.get_foreign_table_names(schema)]
    return views


def _check_name(what: str, name: str, known: Sequence[str], database: str) -> None:
    if name not in known:
        shown = ", ".join(known[:_MOST_NAMES]) + (", …" if len(known) > _MOST_NAMES else "")
        raise SourceError(f"{database} has no {what} {name!r}{suggestion(name, known)} ({what}s: {shown or 'none'})")
