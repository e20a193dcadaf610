"""The rows that a JSON API lists: page after page until its end, packed in bytes."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urljoin

from visionadapt.core.columns import Strings
from visionadapt.core.naming import natural_key, stable_hash
from visionadapt.sources.tables.readers import TableRow, json_row, texts
from visionadapt.sources.walk import Found
from visionadapt.sources.web.image_fields import ImageReference

MISSING = object()
"""What `lookup` gives where a path leads to nothing."""


class ListingError(Exception):
    """The rows cannot be listed; the text says why, in words that hold no secret, and no URL."""


@dataclass(frozen=True)
class Paging:
    """How one page follows another; by its `Link` header where nothing is said.

    Attributes:
        rows: the path to the list of rows in an answer; empty where the answer is the list.
        page: the parameter that counts the pages.
        first_page: the number of the first one.
        cursor: the parameter that takes the cursor of the next page.
        next: the path to that cursor, or without `cursor` to the next page's URL.
        parameters: further ones of every page.
        max_pages, max_rows, max_listing_bytes: how much is read.
    """

    rows: str = ""
    page: str | None = None
    first_page: int = 1
    cursor: str | None = None
    next: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_pages: int = 10_000
    max_rows: int = 1_000_000
    max_listing_bytes: int = 1 << 32


class Page(NamedTuple):
    """One answer: the URL that gave it, its bytes, and what its `Link` header calls the next one."""

    url: str
    body: bytes
    next_link: str | None


Fetch = Callable[[str, Mapping[str, Any]], tuple[str, bytes, str | None]]
"""Gives the answer to a URL and parameters of its query, as the three parts of a `Page`."""


def lookup(value: Any, path: str) -> Any:
    """Return what a dotted path leads to, such as `data.items` or `images.0.url`; MISSING where to nothing."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def listed(url: str, paging: Paging, fetch: Fetch) -> Iterator[tuple[str, Any]]:
    """Yield every row of every page, with the URL of its page.

    Raises:
        ListingError: an answer is no JSON, or has no rows where they should be, or the pages lead to no end.
    """
    count = size = 0
    for number, (page, rows) in enumerate(_pages(url, paging, fetch), 1):
        count, size = count + len(rows), size + len(page.body)
        for option, value in (("max_pages", number), ("max_rows", count), ("max_listing_bytes", size)):
            if value > getattr(paging, option):
                raise ListingError(f"lists more than the limit {option}={getattr(paging, option):,}")
        yield from ((page.url, row) for row in rows)


def _pages(url: str, paging: Paging, fetch: Fetch) -> Iterator[tuple[Page, list[Any]]]:
    parameters = dict(paging.parameters)
    if paging.page is not None:
        parameters[paging.page] = paging.first_page
    seen: set[str] = set()
    number = 0
    while True:
        number += 1
        page = Page(*fetch(url, parameters))
        answer = _parsed(page.body, number)
        rows = _rows(answer, paging.rows, number)
        if paging.page is not None:
            following = _digest(rows) if rows else None
            parameters[paging.page] = paging.first_page + number
        else:
            following = _following(answer, page, paging, number)
        if following in seen:
            raise ListingError(f"page {number} is one that was there before: the pages lead to no end")
        yield page, rows
        if following is None:
            return
        seen.add(following)
        if paging.cursor is not None:
            parameters[paging.cursor] = following
        elif paging.page is None:
            url = urljoin(page.url, following)


def _following(answer: Any, page: Page, paging: Paging, number: int) -> str | None:
    """The next page's cursor or URL; None behind the last one."""
    if paging.next is None:
        return page.next_link
    found = lookup(answer, paging.next)
    if found is MISSING or found is None or found is False or found == "":
        return None
    if not isinstance(found, (str, int)):
        raise ListingError(f"page {number}: next={paging.next} leads to no text or number")
    return str(found)


def _parsed(body: bytes, number: int) -> Any:
    with suppress(ValueError, RecursionError):  # which hold the answer, and so are no context of what is raised
        return json.loads(body.decode("utf-8-sig"))
    raise ListingError(f"page {number} is no JSON")


def _rows(answer: Any, path: str, number: int) -> list[Any]:
    found = lookup(answer, path)
    if isinstance(found, list):
        return found
    what = "leads to nothing" if found is MISSING else "leads to no list"
    names = f"the answer has {_names(answer)}" if isinstance(answer, dict) else f"the answer is {_kind(answer)}"
    raise ListingError(f"page {number}: rows={path or '(the whole answer)'} {what}; {names}")


def _names(answer: Mapping[str, Any]) -> str:
    return ", ".join(repr(name[:40]) for name in list(answer)[:20]) or "no names"


def _kind(answer: Any) -> str:
    return "a list" if isinstance(answer, list) else "neither a list nor an object"


def _digest(rows: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(rows).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Listing:
    """Rows in the natural order of their keys, packed: what they say, and where their pictures are.

    Attributes:
        columns: every name that a row has.
    """

    def __init__(self) -> None:
        self.columns: dict[str, None] = {}
        self._cells, self._keys, self._pictures = Strings(), Strings(), Strings()
        self._order = array("Q")
        self._hashes, self._numbers = array("Q"), array("Q")

    def append(self, picture: ImageReference, row: TableRow) -> None:
        """Add a row and its picture."""
        self.columns.update(dict.fromkeys(row.cells))
        cells = {name: cell for name, cell in row.cells.items() if cell}
        self._cells.append(json.dumps([row.place, cells, row.problem, picture.location, picture.problem]))
        self._keys.append(picture.key)
        self._pictures.append(picture.text)
        self._order.append(len(self._order))

    def settle(self) -> Listing:
        """Bring all rows into their order; return the listing itself."""
        keys = [self._keys[number] for number in self._order]
        parts = [[natural_key(part) for part in key.split("/")] for key in keys]
        self._order = array("Q", sorted(self._order, key=parts.__getitem__))
        hashed = {stable_hash(keys[number]): number for number in reversed(self._order)}
        self._hashes = array("Q", sorted(hashed))
        self._numbers = array("Q", (hashed[number] for number in self._hashes))
        return self

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[str, TableRow, Found]]:
        """Yield key, row, and where its picture is."""
        for number in self._order:
            place, cells, row_problem, location, problem = json.loads(self._cells[number])
            row = TableRow(place, {name: tuple(cell) for name, cell in cells.items()}, row_problem)
            key = self._keys[number]
            yield key, row, Found(location or key, problem)

    def picture(self, key: str) -> str | None:
        """The picture of the first row with a key; None where no row has it."""
        place = bisect_left(self._hashes, stable_hash(key))
        if place == len(self._hashes) or self._hashes[place] != stable_hash(key):
            return None
        number = self._numbers[place]
        return self._pictures[number] if self._keys[number] == key else None


def row_of(value: Any, place: str, columns: tuple[str, ...]) -> TableRow:
    """One row of an answer; `columns` are names or dotted paths that are wanted as columns of their own."""
    row = json_row(place, value)
    if row.problem is not None:
        return row
    found = {path: lookup(value, path) for path in columns if path not in value}
    return TableRow(place, {**row.cells, **{path: texts(cell) for path, cell in found.items() if cell is not MISSING}})
