"""List the rows of a JSON API: page after page until the last, packed in bytes."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from visionadapt.core.columns import Strings
from visionadapt.core.naming import natural_key, stable_hash
from visionadapt.sources.tables.row import MISSING, TableRow, lookup
from visionadapt.sources.walk import Found
from visionadapt.sources.web.image_fields import ImageReference

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpAnswer

    Fetch = Callable[[str, Mapping[str, Any]], HttpAnswer]  # from a URL and the parameters of its query


class ListingError(Exception):
    """The rows cannot be listed; the message says why, without secrets and without the URL."""


@dataclass(frozen=True)
class Paging:
    """How one page follows another, and how much is read at most; fields as in `ApiSource`."""

    rows: str
    page: str | None
    first_page: int
    cursor: str | None
    next: str | None
    parameters: Mapping[str, Any]
    max_pages: int
    max_rows: int
    max_listing_bytes: int


def listed(url: str, paging: Paging, fetch: Fetch) -> Iterator[tuple[str, Any]]:
    """Yield every row of every page, with the URL of its page.

    Raises:
        ListingError: an answer is no JSON, or has no rows where they should be, or the pages never end.
    """
    total = size = 0
    for number, (page, rows) in enumerate(_pages(url, paging, fetch), 1):
        total, size = total + len(rows), size + len(page.body)
        for option, value in (("max_pages", number), ("max_rows", total), ("max_listing_bytes", size)):
            if value > getattr(paging, option):
                raise ListingError(f"lists more than the limit {option}={getattr(paging, option):,}")
        yield from ((page.url, row) for row in rows)


def _pages(url: str, paging: Paging, fetch: Fetch) -> Iterator[tuple[HttpAnswer, list[Any]]]:
    parameters = dict(paging.parameters)
    if paging.page is not None:
        parameters[paging.page] = paging.first_page
    seen: set[str] = set()
    for number in count(1):
        page = fetch(url, parameters)
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


def _following(answer: Any, page: HttpAnswer, paging: Paging, number: int) -> str | None:
    """The next page's cursor or URL; None after the last one."""
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
    if isinstance(answer, dict):
        names = f"has {', '.join(repr(name[:40]) for name in list(answer)[:20]) or 'no names'}"
    else:
        names = "is a list" if isinstance(answer, list) else "is neither a list nor an object"
    raise ListingError(f"page {number}: rows={path or '(the whole answer)'} {what}; the answer {names}")


def _digest(rows: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(rows).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Listing:
    """Rows in the natural order of their keys, packed, with the reference to each one's image.

    Attributes:
        columns: the names of all cells.
    """

    def __init__(self) -> None:
        self.columns: dict[str, None] = {}
        self._cells, self._keys, self._images = Strings(), Strings(), Strings()
        self._order = array("Q")
        self._hashes, self._numbers = array("Q"), array("Q")

    def append(self, image: ImageReference, row: TableRow) -> None:
        """Add a row and its image."""
        self.columns.update(dict.fromkeys(row.cells))
        cells = {name: cell for name, cell in row.cells.items() if cell}
        self._cells.append(json.dumps([row.place, cells, row.problem, image.location, image.problem]))
        self._keys.append(image.key)
        self._images.append(image.text)
        self._order.append(len(self._order))

    def sort(self) -> Listing:
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
        """Yield key, row, and where its image is."""
        for number in self._order:
            place, cells, row_problem, location, problem = json.loads(self._cells[number])
            row = TableRow(place, {name: tuple(cell) for name, cell in cells.items()}, row_problem)
            key = self._keys[number]
            yield key, row, Found(location or key, problem)

    def image(self, key: str) -> str | None:
        """Return the URL or encoded bytes of the first row with a key; None where no row has it."""
        place = bisect_left(self._hashes, stable_hash(key))
        if place == len(self._hashes) or self._hashes[place] != stable_hash(key):
            return None
        number = self._numbers[place]
        return self._images[number] if self._keys[number] == key else None
