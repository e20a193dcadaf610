"""`ApiSource`: images and labels listed by a JSON API, as URLs or as base64."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, get_args
from urllib.parse import urlsplit

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError, without_secrets
from visionadapt.sources.arguments import check_choice, flag, mapping, needing, several, text
from visionadapt.sources.credentials import Credentials
from visionadapt.sources.tables.row import TableRow, json_row
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found
from visionadapt.sources.web.image_fields import Encoding, ImageReferences, decoded, is_data_uri
from visionadapt.sources.web.listing import Listing, ListingError, Paging, listed
from visionadapt.sources.web.urls import host_names, shown, split_url

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpAnswer, HttpClient


@dataclass(frozen=True, repr=False)
class ApiSource(TabularSource):
    """Images listed by a JSON API: one row per image, a field for the image, others for label, group and split.

    The rows are requested once, when they are first needed, and sorted by their keys in natural order, whatever the
    server's order. Every row becomes a record, those that cannot be used with a problem, as in a table. The key is what
    `key` names, or the path of the image's URL (below its host's name where that differs from the API's; with a number
    where several differ only in their query), or a hash of bytes given as base64. An image that several rows name
    counts once, in its first row; where they give it different labels, in none.

    Only the API's own host and `hosts` are contacted, at public addresses unless `private` is set; redirects are
    checked again. Secrets are given as names of environment variables, whose values are read when a request is made;
    they are sent only to the API's own origin, and only over https unless `private` is set.

    Columns are fields named by dotted paths: `data.items` is the field `items` in the field `data`, `media.0.url` the
    field `url` of the first element of `media`.

    Args:
        url: of the first page; without user, password or query.
        image: the column with the image: a URL, absolute or relative to the page's, a data URI, or base64.
        {columns}
        rows: where the list of rows is in an answer; by default the answer is the list.
        key: the column that names the row, unique and always the same.
        encoding: what a string that is no data URI holds: `url` or `base64`.
        page: the parameter that counts the pages, from `first_page` on; the first page without rows is the last.
        cursor: the parameter that takes what the previous answer had at `next`.
        next: where the next page's cursor is in an answer, or without `cursor` its URL. Without `page` and `next`, the
            `Link: …; rel="next"` header is followed, if there is one.
        parameters: of the query, for every page. They are not secret: a run folder holds them.
        token: the variable with the token for `Authorization: Bearer …`.
        secret_headers, secret_parameters: name → the variable with the value, for headers and for parameters.
        hosts: further hosts that may be contacted, as `host` or `host:port`.
        private: whether addresses that only this machine or its network reaches are allowed, and credentials over http.
        timeout, deadline: seconds to wait for a connection and each part of an answer; for a complete answer.
        retries, wait, max_wait: how many times a request is repeated where the server is busy or unreachable, how
            many seconds before the first (twice as many before each next one), and how many at most.
        max_bytes, max_page_bytes: a larger image or page is refused.
        max_pages, max_rows, max_listing_bytes: a longer list of rows is refused.

    Raises:
        SourceError: an argument is invalid. Errors of the server are raised when it is first contacted.
    """

    url: str
    image: str
    label: str | Sequence[str] | None = None
    _: KW_ONLY
    rows: str = ""
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    merge: bool = False
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

    _column_options: ClassVar[tuple[str, ...]] = (*TabularSource._column_options, "key")

    def __post_init__(self) -> None:
        self._set(
            url=str(self.url).strip(),
            rows=str(self.rows),
            parameters=dict(self.parameters),
            private=flag("private", self.private),
            **{name: text(getattr(self, name)) for name in ("key", "page", "cursor", "next", "token")},
            **{name: mapping(name, getattr(self, name)) for name in ("secret_headers", "secret_parameters")},
        )
        self._normalize_columns()
        self._check_url()
        self._check_paging()
        self._set(hosts=host_names(self.hosts))

    @property
    def name(self) -> str:
        """The last part of the URL's path, or its host's name."""
        path = urlsplit(self.url).path.rstrip("/").rpartition("/")[2]
        return re.sub(r"[^\w.-]", "_", path).strip(".") or str(urlsplit(self.url).hostname)

    def read(self, record: Record) -> bytes:
        """Return the image file's bytes.

        Raises:
            ImageError: it is missing, or not available within its limits.
            SourceError: its host does not answer, or does not accept the credentials.
        """
        image = self._listing.image(record.key)
        if not image:
            raise ImageError(record.key, "no row has such an image")
        if self.encoding == "url" and not is_data_uri(image):
            from visionadapt.sources.web.client import image_bytes

            return image_bytes(self._client, image, record.key, self.max_bytes)
        try:
            return decoded(image, self.max_bytes)
        except ValueError as error:
            raise ImageError(record.key, str(error)) from None

    def version_of(self, record: Record) -> str | None:
        """Return a hash of the image's URL, or of its bytes where the row holds them, and of the row's other fields."""
        image = self._listing.image(record.key)
        return f"{stable_hash(image, *sorted(record.columns.items())):016x}" if image else None

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_client"}

    def resolved(self) -> ApiSource:
        """Return the same source: a URL means the same in any working folder."""
        return self

    def _check_url(self) -> None:
        parts, title = split_url(self.url), self._title
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SourceError(f"{title}: give the http or https URL of a JSON API")
        if "@" in parts.netloc:
            raise SourceError(
                f"{title}: a URL must hold no user and no password; set an environment variable and name it with "
                "token= or secret_headers="
            )
        if parts.query or parts.fragment:
            raise SourceError(
                f"{title}: give the URL without its query, as parameters={{name: value}}; secrets in it as "
                "secret_parameters={name: VARIABLE}, by the name of an environment variable"
            )
        self._credentials.check(title)
        if self._credentials and parts.scheme == "http" and not self.private:
            raise SourceError(f"{title}: credentials are sent only over https; give the https URL, or private=true")

    def _check_paging(self) -> None:
        check_choice("encoding", self.encoding, get_args(Encoding))
        if self.page is not None and (self.cursor is not None or self.next is not None):
            raise SourceError(f"{self._title}: give page= to count the pages, or next= to follow them, not both")
        if self.cursor is not None and self.next is None:
            raise SourceError(f"{self._title}: cursor={self.cursor} needs next=, the path to the next cursor")
        for option, least in _LEAST.items():
            value = getattr(self, option)
            if not isinstance(value, (int, float)) or not value >= least:
                raise SourceError(f"{self._title}: {option}={value!r} must be a number, at least {least:g}")

    @property
    def _title(self) -> str:
        return shown(self.url)

    @property
    def _credentials(self) -> Credentials:
        return Credentials(self.token, self.secret_headers, self.secret_parameters)

    @cached_property
    def _client(self) -> HttpClient:
        with needing(f"{self._title}: a JSON API", "requests and tenacity", "http"):
            from visionadapt.sources.web.client import HttpClient, Patience
        patience = Patience(self.timeout, self.deadline, self.retries, self.wait, self.max_wait)
        return HttpClient(tuple(self.hosts), self.private, patience, self.url, self._credentials)

    def _known_columns(self) -> Sequence[str]:
        return tuple(self._listing.columns)

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        return iter(self._listing)

    @cached_property
    def _listing(self) -> Listing:
        """All rows, requested once."""
        paging = Paging(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Paging)})
        hide, listing = self._credentials.hiding(), Listing()
        images = ImageReferences(self.url, self.image, self.key, self.encoding, self._client.refusal, hide)
        named = tuple(name for name in (self.image, *several(self.label), self.group, self.split, self.key) if name)
        problem = None
        try:
            for number, (page, value) in enumerate(listed(self.url, paging, self._page), 1):
                row = json_row(f"row {number}", value, named)
                listing.append(images.of(row, page), self._harmless(row, hide))
        except ListingError as error:
            problem = hide(str(error))
        if problem is not None:  # raised here, so that what may hold a secret is not even its context
            raise SourceError(f"{self._title}: {problem}")
        if not len(listing):
            raise SourceError(f"{self._title}: the list of rows is empty")
        return listing.sort()

    def _page(self, url: str, parameters: Mapping[str, Any]) -> HttpAnswer:
        from visionadapt.sources.web.client import Wanted
        from visionadapt.sources.web.guarded_connections import HttpError

        try:
            return self._client.get(url, Wanted("max_page_bytes", self.max_page_bytes, "application/json"), parameters)
        except HttpError as error:
            raise ListingError(error.reason if url == self.url else f"{shown(url)} {error.reason}") from None

    def _harmless(self, row: TableRow, hide: Callable[[str], str]) -> TableRow:
        """The row without its image and without secrets: neither those sent nor those in URLs that it holds."""
        assigned = {*several(self.label), self.group, self.split}
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
