"""`ApiSource`: pictures and labels that a JSON API lists, with their URLs or their bytes as base64."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError, without_secrets
from visionadapt.sources.arguments import mapping
from visionadapt.sources.credentials import Credentials
from visionadapt.sources.tables.readers import TableRow
from visionadapt.sources.tabular import Columns, TableFacts, check_column, settle
from visionadapt.sources.web.image_fields import Encoding, ImageReferences, decoded, is_data_uri
from visionadapt.sources.web.listing import Listing, ListingError, Paging, listed, row_of
from visionadapt.sources.web.urls import allowed, shown, split_url

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpAnswer, HttpClient


@dataclass(frozen=True)
class ApiSource:
    """Images that a JSON API names: one row each, a field for the picture, others for label, group and split.

    The rows are asked for once, when they are first needed, and kept in the natural order of their keys, whatever
    the order in which the server has them. Every row becomes a record, those that cannot be used with a problem, as in
    a table. The key is what `key` names, or the path of the picture's URL (behind its host's name where that is not
    the API's; with a number where only the queries of several differ), or a hash of bytes that are given as base64. A
    picture that several rows name counts once, in its first row; where they give it different labels, in none.

    Only the API's own host and `hosts` are asked, at public addresses unless `private` is set; redirects are checked
    anew. What must stay secret is given by the names of environment variables, whose values are read when a request
    is made; they go to the API's own origin alone, and only over https unless `private` is set.

    Fields are named by dotted paths: `data.items` is the field `items` in the field `data`, `media.0.url` the field
    `url` of the first element of `media`.

    Args:
        url: of the first page; without user, password or query.
        image: the field with the picture: a URL, absolute or relative to the page's, a data URI, or base64.
        label: the field with the label, or a list of several; None takes the pictures as unlabelled.
        rows: where the list of rows is in an answer; by default the answer is the list.
        key: the field that names the row, unique and always the same.
        labels: other names for labels, such as `{"T-Shirt": "t-shirt"}`; the others stay as they are.
        drop: labels, as the API has them, whose rows are not used.
        group: the field of what must not be divided between training and validation.
        split: the field with train, val (validation, valid) or test, in any case.
        separator: what stands between several labels of one text.
        encoding: what a text that is no data URI holds: `url` or `base64`.
        page: the parameter that counts the pages, from `first_page` on; the first page without rows is the last.
        cursor: the parameter that takes what the answer before had at `next`.
        next: where the next page's cursor is in an answer, or without `cursor` its URL. Without `page` and `next`, the
            `Link: …; rel="next"` header is followed, where there is one.
        parameters: of the query, for every page. They are no secret: a run folder holds them.
        token: the variable with the token for `Authorization: Bearer …`.
        secret_headers, secret_parameters: name → the variable with the value, for headers and for parameters.
        hosts: further hosts that may be asked, as `host` or `host:port`.
        private: whether addresses may be asked that only this machine or its neighbours reach, and http may carry
            credentials.
        timeout, deadline: seconds to wait for a connection and each part of an answer; for a whole answer.
        retries, wait, max_wait: how many times a request is made again where the server is busy or out of reach, how
            many seconds before the first (twice as many before each next one), and how many at most.
        max_bytes, max_page_bytes: a larger picture or page is refused.
        max_pages, max_rows, max_listing_bytes: a longer list of rows is refused.

    Raises:
        SourceError: an argument cannot be. What the server has, and has not, is told when it is first asked.
    """

    url: str
    image: str
    label: str | None = None
    _: KW_ONLY
    rows: str = ""
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    encoding: Encoding = "url"
    page: str | None = None
    first_page: int = 1
    cursor: str | None = None
    next: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    token: str | None = None
    secret_headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    secret_parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    hosts: Sequence[str] = ()
    private: bool = False
    timeout: float = 30.0
    deadline: float = 120.0
    retries: int = 5
    wait: float = 0.5
    max_wait: float = 60.0
    max_bytes: int = 1 << 26
    max_page_bytes: int = 1 << 24
    max_pages: int = 10_000
    max_rows: int = 1_000_000
    max_listing_bytes: int = 1 << 32

    def __post_init__(self) -> None:
        hosts = (self.hosts,) if isinstance(self.hosts, str) else tuple(self.hosts)
        texts = ("key", "page", "cursor", "next", "token")
        settled = {
            "url": str(self.url).strip(),
            "rows": str(self.rows),
            "hosts": tuple(str(host).strip().lower() for host in hosts),
            "parameters": dict(self.parameters),
            "private": {"true": True, "false": False}.get(str(self.private).lower(), self.private),
            **{name: None if getattr(self, name) is None else str(getattr(self, name)) for name in texts},
            **{name: mapping(name, getattr(self, name)) for name in ("secret_headers", "secret_parameters")},
            **settle(self),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        self._check()

    @property
    def name(self) -> str:
        """The last part of the URL's path, or its host's name."""
        path = urlsplit(self.url).path.rstrip("/").rpartition("/")[2]
        return re.sub(r"[^\w.-]", "_", path).strip(".") or str(urlsplit(self.url).hostname)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that are not dropped, in natural order; one that only test rows have does not count, where there
        are others.

        Raises:
            SourceError: the rows cannot be had, or none has a label that `labels` or `drop` names.
        """
        return self._columns.classes(self._facts)

    def __iter__(self) -> Iterator[Record]:
        return self._facts.told(self._records())

    def read(self, record: Record) -> bytes:
        """Return the picture file's bytes.

        Raises:
            ImageError: it is not there, or not to be had within its limits.
            SourceError: its host does not answer, or does not take the credentials.
        """
        text = self._listing.picture(record.key)
        if not text:
            raise ImageError(record.key, "no row has such a picture")
        if self.encoding == "url" and not is_data_uri(text):
            from visionadapt.sources.web.client import picture

            return picture(self._client, text, record.key, self.max_bytes)
        try:
            return decoded(text, self.max_bytes)
        except ValueError as error:
            raise ImageError(record.key, str(error)) from None

    def version_of(self, record: Record) -> str | None:
        """A hash of the picture's URL, or of its bytes where the row holds them, and of the row's other fields."""
        picture = self._listing.picture(record.key)
        return f"{stable_hash(picture, *sorted(record.columns.items())):016x}" if picture else None

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_client"}

    def resolved(self) -> ApiSource:
        """The same source: a URL means the same in any working folder."""
        return self

    def _check(self) -> None:
        parts, title = split_url(self.url), shown(self.url)
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SourceError(f"{title}: give the http or https URL of a JSON API")
        if "@" in parts.netloc:
            raise SourceError(
                f"{title}: a URL must hold no user and no password; set an environment variable and name it with "
                "token= or secret_headers="
            )
        if parts.query or parts.fragment:
            raise SourceError(
                f"{title}: give the URL without its query, as parameters={{name: value}}; what is secret in it as "
                "secret_parameters={name: VARIABLE}, by the name of an environment variable"
            )
        self._credentials.check(title)
        if self._credentials and parts.scheme == "http" and not self.private:
            raise SourceError(f"{title}: credentials go over https alone; give the https URL, or private=true")
        for host in self.hosts:
            allowed(host)
        self._check_choices(title)

    def _check_choices(self, title: str) -> None:
        if not isinstance(self.private, bool):
            raise SourceError(f"{title}: private= is true or false")
        if self.encoding not in get_args(Encoding):
            raise SourceError(
                f"{title}: encoding={self.encoding!r} is unknown (known: {', '.join(get_args(Encoding))})"
            )
        if self.page is not None and (self.cursor is not None or self.next is not None):
            raise SourceError(f"{title}: pages are counted (page=), or name the next one (next=), not both")
        if self.cursor is not None and self.next is None:
            raise SourceError(f"{title}: cursor={self.cursor} needs next=, the path to the next cursor in an answer")
        if self.separator == "":
            raise SourceError(f"{title}: separator= must be a character or more, such as '|'")
        for option, least in _LEAST.items():
            value = getattr(self, option)
            if not isinstance(value, (int, float)) or not value >= least:
                raise SourceError(f"{title}: {option}={value!r} must be a number, at least {least:g}")

    @property
    def _credentials(self) -> Credentials:
        return Credentials(self.token, self.secret_headers, self.secret_parameters)

    @property
    def _columns(self) -> Columns:
        return Columns.of(self, shown(self.url))

    @cached_property
    def _client(self) -> HttpClient:
        try:
            from visionadapt.sources.web.client import HttpClient, Patience
        except ImportError as error:
            raise SourceError(
                f"{shown(self.url)}: a JSON API needs requests and tenacity; pip install 'visionadapt[http]'"
            ) from error
        patience = Patience(self.timeout, self.deadline, self.retries, self.wait, self.max_wait)
        return HttpClient(tuple(self.hosts), self.private, patience, self.url, self._credentials)

    @cached_property
    def _facts(self) -> TableFacts:
        columns, listing = self._columns, self._listing
        known = tuple(listing.columns)
        columns.check(known)
        check_column(columns.title, "key", self.key, known)
        return columns.facts(lambda: ((key, row) for key, row, _ in listing))

    def _records(self) -> Iterator[tuple[str, Record]]:
        columns = self._columns
        for key, row, found in self._listing:
            yield row.place, columns.record(key, row, found)

    @cached_property
    def _listing(self) -> Listing:
        """All rows, asked for once."""
        paging = Paging(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Paging)})
        hide, listing = self._credentials.hiding(), Listing()
        pictures = ImageReferences(self.url, self.image, self.key, self.encoding, self._client.refusal, hide)
        wanted = tuple(name for name in (self.image, self.label, self.group, self.split, self.key) if name)
        problem = None
        try:
            for number, (page, value) in enumerate(listed(self.url, paging, self._page), 1):
                row = row_of(value, f"row {number}", wanted)
                listing.append(pictures.of(row, page), self._harmless(row, hide))
        except ListingError as error:
            problem = hide(str(error))
        if problem is not None:  # raised here, so that what may hold a secret is not even its context
            raise SourceError(f"{shown(self.url)}: {problem}")
        if not len(listing):
            raise SourceError(f"{shown(self.url)}: the list of rows is empty")
        return listing.settle()

    def _page(self, url: str, parameters: Mapping[str, Any]) -> HttpAnswer:
        from visionadapt.sources.web.client import Cap, HttpError

        try:
            cap = Cap("max_page_bytes", self.max_page_bytes)
            return self._client.get(url, cap, accept="application/json", parameters=parameters)
        except HttpError as error:
            raise ListingError(error.reason if url == self.url else f"{shown(url)} {error.reason}") from None

    def _harmless(self, row: TableRow, hide: Callable[[str], str]) -> TableRow:
        """The row without its picture and without secrets: neither those sent nor those in URLs that it holds."""
        assigned = {self.label, self.group, self.split}
        cells = {name: tuple(map(hide, cell)) for name, cell in row.cells.items()}
        for name in cells:
            if name == self.image or self.image.startswith(f"{name}."):
                cells[name] = ()
            elif name not in assigned:
                cells[name] = tuple(map(without_secrets, cells[name]))
        return dataclasses.replace(row, cells=cells)


_LEAST = {
    "first_page": 0,
    "timeout": 0.001,
    "deadline": 0.001,
    "retries": 0,
    "wait": 0,
    "max_wait": 0,
    **dict.fromkeys(("max_bytes", "max_page_bytes", "max_pages", "max_rows", "max_listing_bytes"), 1),
}
