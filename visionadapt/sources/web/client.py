"""`HttpClient`: GET requests bounded in bytes and seconds, only to hosts that the user allows.

Imports requests and tenacity: import this module only where it is used.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from http import HTTPStatus
from http.client import HTTPException, InvalidURL, responses
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, wait_exponential, wait_random
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import ReadTimeoutError

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.credentials import Credentials
from visionadapt.sources.web.guarded_connections import Guard, HttpError, guarded, guarded_adapter
from visionadapt.sources.web.urls import allowed, origin, refusal, shown
from visionadapt.version import __version__

MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {408, 429, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """Waits in seconds, and the number of retries; fields as in `ApiSource`.

    Waits double from `wait` on, plus a random share of as much again. A server that asks to wait longer than `max_wait`
    is not contacted again. Only the system limits how long a host's name is looked up.
    """

    timeout: float = 30.0
    deadline: float = 120.0
    retries: int = 5
    wait: float = 0.5
    max_wait: float = 60.0


@dataclass(frozen=True)
class Wanted:
    """What an answer may be: its media type, and its number of bytes at most, which `option` sets."""

    option: str
    max_bytes: int
    accept: str = "*/*"

    def too_large(self) -> HttpError:
        return HttpError(f"has more than {self.max_bytes:,} bytes, the limit {self.option}=")


class HttpAnswer(NamedTuple):
    """An answer's bytes, its URL after all redirects, and the URL that its `Link` header calls the next one."""

    url: str
    body: bytes
    next_link: str | None


@dataclass(frozen=True)
class HttpClient:
    """Requests URLs with GET.

    Only http and https; only `hosts`, and public addresses unless `private`: a connection goes to the very address that
    was checked, and every redirect is checked again. Credentials are sent only to the origin `home` (scheme, host and
    port). Neither proxies nor `.netrc` are used. Connections are kept for the next request of the same thread; a copy
    in another process opens its own.

    Attributes:
        hosts: `host`, for the ports 80 and 443, or `host:port`.
        private: whether addresses that only this machine or its network reaches are allowed.
        patience: waits and retries.
        home: the URL whose origin gets the credentials; it is allowed as well.
        credentials: what it gets.
        sleep: called to wait.
    """

    hosts: tuple[str, ...] = ()
    private: bool = False
    patience: Patience = Patience()
    home: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    sleep: Callable[[float], None] = time.sleep

    def refusal(self, url: str) -> str | None:
        """Return why a URL must not be requested, before its host's address is known; None where it may."""
        return refusal(url, self._allowed)

    @cached_property
    def _allowed(self) -> frozenset[tuple[str, int]]:
        home = [origin(self.home)[1:]] if self.home else []
        return frozenset([*home, *(pair for host in self.hosts for pair in allowed(host))])

    def get(self, url: str, wanted: Wanted, parameters: Mapping[str, Any] | None = None) -> HttpAnswer:
        """Return the answer to a request.

        Args:
            url: what to request; parameters that its query has already stay as they are.
            wanted: what the answer may be; the limit holds both before and after decompression.
            parameters: for the query, if `url` is of the origin `home`; the secret ones are then added as well, if this
                is not None.

        Raises:
            HttpError: it must not be requested, or was not answered, or not within its limits.
            SourceError: a variable of the credentials is not set.
        """
        again = Retrying(
            retry=retry_if_result(lambda outcome: isinstance(outcome, HttpError) and outcome.transient),
            stop=stop_after_attempt(1 + self.patience.retries),
            wait=self._wait,
            sleep=self.sleep,
            retry_error_callback=_outcome_of,
        )
        outcome = again(self._outcome, url, wanted, parameters)
        if isinstance(outcome, HttpError):
            raise outcome
        return outcome

    def answers(self, url: str) -> bool:
        """Return whether the host of a URL answers one request for its root, and is not merely busy."""
        outcome = self._outcome(urljoin(url, "/"), Wanted("", _CHUNK), None)
        return isinstance(outcome, HttpAnswer) or not (outcome.of_source or outcome.transient)

    def _wait(self, state: RetryCallState) -> float:
        """Exponential, with jitter; at least what the server asks for."""
        patience, outcome = self.patience, _outcome_of(state)
        own = wait_exponential(patience.wait, patience.max_wait)(state) + wait_random(0, patience.wait)(state)
        return max(own, outcome.after if isinstance(outcome, HttpError) else 0.0)

    def _outcome(self, url: str, wanted: Wanted, parameters: Mapping[str, Any] | None) -> HttpAnswer | HttpError:
        """Make one attempt. The libraries' errors hold URLs and headers: they are not even the context of its error."""
        with guarded(self.private, self.patience.deadline) as guard:
            try:
                return self._exchange(guard, url, wanted, parameters)
            except HttpError as error:
                failed = error
            except (requests.RequestException, TransportError, HTTPException, OSError, ValueError) as error:
                failed = self._http_error(error)
            return self._overdue() if guard.expired else failed

    def _exchange(self, guard: Guard, url: str, wanted: Wanted, parameters: Mapping[str, Any] | None) -> HttpAnswer:
        """Request, and follow redirects by hand."""
        for _ in range(1 + MOST_REDIRECTS):
            response = self._send(url, wanted.accept, parameters)
            try:
                if response.status_code in _REDIRECTS:
                    url = self._redirected(str(response.url), response)
                    continue
                self._check(response)
                body = b"".join(_decoded(response, wanted))
                if guard.expired:
                    raise self._overdue()
                return HttpAnswer(str(response.url), body, response.links.get("next", {}).get("url"))
            finally:
                response.close()
        raise HttpError(f"redirects more than {MOST_REDIRECTS} times")

    def _send(self, url: str, accept: str, parameters: Mapping[str, Any] | None) -> requests.Response:
        plain = _prepared(url)
        problem = self.refusal(str(plain.url))
        if problem is not None:
            raise HttpError(f"is not requested: {problem}")
        headers = {"User-Agent": f"visionadapt/{__version__}", "Accept": accept, "Accept-Encoding": "gzip"}
        if origin(str(plain.url)) == origin(self.home or ""):
            headers |= self.credentials.header_values()
            if parameters is not None:
                plain = _prepared(url, {**parameters, **self.credentials.parameter_values()})
        plain.headers.update(headers)
        return _adapter(self.private).send(
            plain,
            stream=True,
            timeout=(self.patience.timeout, self.patience.timeout),
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
        )

    def _redirected(self, url: str, response: requests.Response) -> str:
        target = None
        with suppress(ValueError):
            target = urljoin(url, response.headers.get("Location", "").encode("latin-1").decode("utf-8", "replace"))
        if target is None:
            raise HttpError("redirects to what is no URL")
        problem = self.refusal(target)
        if problem is None and (urlsplit(url).scheme, urlsplit(target).scheme) == ("https", "http"):
            problem = "it would no longer be encrypted"
        if problem is not None:
            raise HttpError(
                f"redirects to {self.credentials.hiding()(shown(target))}, which is not followed: {problem}"
            )
        return target

    def _check(self, response: requests.Response) -> None:
        """Raise HttpError where the status is not 2xx."""
        status = response.status_code
        if 200 <= status < 300:
            return
        reason = f"answers {status} ({responses.get(status, 'an unknown status')})"
        if status == HTTPStatus.UNAUTHORIZED and origin(str(response.url)) == origin(self.home or ""):
            hint = "see the environment variables that token=, secret_headers= and secret_parameters= name"
            raise HttpError(f"{reason}; {hint}", of_source=True)
        after = _seconds(response.headers.get("Retry-After", ""))
        if status in _BUSY and after > self.patience.max_wait:
            wait = f"{after:,.0f} s, more than max_wait={self.patience.max_wait:g}"
            raise HttpError(f"{reason} and asks to wait {wait}", of_source=True)
        transient = status in _BUSY or status == HTTPStatus.INTERNAL_SERVER_ERROR
        raise HttpError(reason, of_source=status in _BUSY, transient=transient, after=after)

    def _overdue(self) -> HttpError:
        return HttpError(f"takes longer than deadline={self.patience.deadline:g} s")

    def _http_error(self, error: Exception) -> HttpError:
        """Describe an error of the libraries without its text."""
        if isinstance(error, (requests.Timeout, ReadTimeoutError, TimeoutError)):
            seconds = self.patience.timeout
            return HttpError(f"does not answer for timeout={seconds:g} s", of_source=True, transient=True)
        if isinstance(error, requests.exceptions.SSLError):
            reason = "cannot be trusted: its TLS certificate or connection is not valid"
            return HttpError(reason, of_source=True, transient=True)
        if isinstance(error, (ValueError, InvalidURL)):
            return HttpError("is no URL that can be requested")
        if isinstance(error, requests.ConnectionError):
            return HttpError("closes the connection", of_source=True, transient=True)
        return HttpError("stops before its answer is complete", transient=True)


def image_bytes(client: HttpClient, url: str, key: str, max_bytes: int) -> bytes:
    """Return the image file at a row's URL.

    Raises:
        ImageError: it is missing, or not available within its limits.
        SourceError: its host does not answer, or does not accept the credentials.
    """
    try:
        return client.get(url, Wanted("max_bytes", max_bytes, "image/*, */*;q=0.1")).body
    except HttpError as error:
        failed = error
    hide = client.credentials.hiding()
    if failed.of_source and not (failed.transient and client.answers(url)):
        raise SourceError(f"{hide(shown(url))}: {hide(failed.reason)}")
    raise ImageError(key, hide(failed.reason))


def _outcome_of(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


_opened = threading.local()


def _adapter(private: bool) -> HTTPAdapter:
    """The connections of this thread in this process; those that may reach private addresses are separate."""
    if getattr(_opened, "process", None) != os.getpid():
        _opened.process, _opened.adapters = os.getpid(), {}
    adapters: dict[bool, HTTPAdapter] = _opened.adapters
    if private not in adapters:
        adapters[private] = guarded_adapter()
    return adapters[private]


def _prepared(url: str, parameters: Mapping[str, Any] | None = None) -> requests.PreparedRequest:
    """Prepare a request without cookies, proxies and `.netrc`; parameters that the URL has already are left out."""
    known = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    added = {name: value for name, value in (parameters or {}).items() if name not in known}
    return requests.Request("GET", url, params=added).prepare()


def _decoded(response: requests.Response, wanted: Wanted) -> Iterator[bytes]:
    """Yield the parts of an answer's body, decompressed; never more of them than the limit and one part."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > wanted.max_bytes:
        raise wanted.too_large()
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise HttpError("answers in a compression that was not asked for")
    parts: Iterator[bytes] = iter(partial(response.raw.read, _CHUNK, decode_content=False), b"")
    total = 0
    for part in parts if encoding in {"", "identity"} else _inflated(parts):
        total += len(part)
        if total > wanted.max_bytes:
            raise wanted.too_large()
        yield part


def _inflated(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip or zlib part by part, so that a few bytes cannot become very many at once."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for part in parts:
        while part:
            try:
                yield inflater.decompress(part, _CHUNK)
            except zlib.error:
                raise HttpError("is said to be compressed, and is not") from None
            part = inflater.unconsumed_tail
    if not inflater.eof:
        raise HttpError("stops before its answer is complete", transient=True)


def _seconds(text: str) -> float:
    """Parse a `Retry-After` header: a number of seconds, or the time until a date; 0 for anything else."""
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
