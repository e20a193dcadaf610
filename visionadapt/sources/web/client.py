"""`HttpClient`: GET requests that are bounded in bytes and seconds, and go where the user allowed.

Imports requests and tenacity; whoever uses it imports it when it is needed.
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
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException, InvalidURL
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import ReadTimeoutError

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.credentials import Credentials
from visionadapt.sources.web.guarded_connections import (
    AddressRefusedError,
    Guard,
    UnreachableError,
    guarded,
    guarded_adapter,
)
from visionadapt.sources.web.urls import allowed, origin, refusal, shown
from visionadapt.version import __version__

MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {408, 429, 502, 503, 504}


class HttpError(Exception):
    """A request was not made, or not answered as it should be. No text of it holds a secret.

    Attributes:
        reason: what is wrong, one line without the URL.
        of_source: whether other requests would fare the same, so that it is not this URL's fault.
        transient: whether it may be otherwise a moment later.
        after: how many seconds the server asks to wait before that.
    """

    def __init__(self, reason: str, *, of_source: bool = False, transient: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.of_source = of_source
        self.transient = transient
        self.after = after


@dataclass(frozen=True)
class Patience:
    """How long to wait for what; seconds, but for `retries`.

    Attributes:
        timeout: for a connection, and for each next part of an answer.
        deadline: for a whole answer, redirects included. Only the system limits how long a host's name is looked up.
        retries: how many times a request is made again.
        wait: before the first of these; doubled for each further one, and spread at random by as much again.
        max_wait: the longest of these waits. A server that asks for a longer one is not asked again.
    """

    timeout: float = 30.0
    deadline: float = 120.0
    retries: int = 5
    wait: float = 0.5
    max_wait: float = 60.0


@dataclass(frozen=True)
class Cap:
    """A largest number of bytes, and what the user sets it with."""

    option: str
    bytes: int

    def exceeded(self) -> HttpError:
        """The error that tells of it."""
        return HttpError(f"has more than {self.bytes:,} bytes, the limit {self.option}=")


class HttpAnswer(NamedTuple):
    """An answer's bytes, the URL that gave it after all redirects, and what its `Link` header calls the next one."""

    url: str
    body: bytes
    next_link: str | None


@dataclass(frozen=True)
class HttpClient:
    """Asks for URLs with GET.

    Only http and https; only `hosts`, and addresses that are public unless `private`: a connection is made to the very
    address that was checked, and every hop of a redirect is checked anew. Credentials go to the origin `home` alone
    (scheme, host and port). Neither proxies nor `.netrc` are used. A connection is kept for the next request of the
    same thread; a copy in another process opens its own.

    Attributes:
        hosts: `host`, for the ports 80 and 443, or `host:port`.
        private: whether addresses may be asked that only this machine or its neighbours reach.
        patience: waits and retries.
        home: the URL whose origin gets the credentials; it is allowed as well.
        credentials: what it gets.
        sleep: is called to wait.
    """

    hosts: tuple[str, ...] = ()
    private: bool = False
    patience: Patience = Patience()
    home: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    sleep: Callable[[float], None] = time.sleep

    def refusal(self, url: str) -> str | None:
        """Why a URL must not be asked, before its host's address is known; None where it may."""
        return refusal(url, self._allowed)

    @cached_property
    def _allowed(self) -> frozenset[tuple[str, int]]:
        home = [origin(self.home)[1:]] if self.home else []
        return frozenset([*home, *(pair for host in self.hosts for pair in allowed(host))])

    def get(
        self, url: str, cap: Cap, *, accept: str = "*/*", parameters: Mapping[str, Any] | None = None
    ) -> HttpAnswer:
        """Return the answer to a request.

        Args:
            url: what to ask for; parameters that its query has already stay as they are.
            cap: the most bytes of the answer, decompressed or not.
            accept: the media type wanted.
            parameters: for the query, if `url` is of the origin `home`; the secret ones are then added as well, if this
                is not None.

        Raises:
            HttpError: it must not be asked, or was not answered, or not within its limits.
            SourceError: a variable of the credentials is not set.
        """
        patience = self.patience
        again = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, HttpError) and error.transient),
            stop=stop_after_attempt(1 + patience.retries),
            wait=_Wait(patience),
            sleep=self.sleep,
            reraise=True,
        )
        answer: HttpAnswer = again(self._attempt, url, cap, accept, parameters)
        return answer

    def answers(self, url: str) -> bool:
        """Whether the host of a URL answers at all, asked once for its root; that it does, and is not merely busy."""
        root = urljoin(url, "/")
        outcome = self._outcome(root, Cap("", _CHUNK), "*/*", None)
        return isinstance(outcome, HttpAnswer) or not (outcome.of_source or outcome.transient)

    def _attempt(self, url: str, cap: Cap, accept: str, parameters: Mapping[str, Any] | None) -> HttpAnswer:
        outcome = self._outcome(url, cap, accept, parameters)
        if isinstance(outcome, HttpError):
            raise outcome
        return outcome

    def _outcome(self, url: str, cap: Cap, accept: str, parameters: Mapping[str, Any] | None) -> HttpAnswer | HttpError:
        """One attempt. The libraries' errors hold URLs and headers: they are not even the context of those told."""
        with guarded(self.private, self.patience.deadline) as guard:
            try:
                return self._exchange(guard, url, cap, accept, parameters)
            except HttpError as error:
                told = error
            except AddressRefusedError as error:
                told = HttpError(f"{error}; private=true allows it")
            except UnreachableError as error:
                told = HttpError(str(error), of_source=True, transient=True)
            except (requests.RequestException, TransportError, HTTPException, OSError, ValueError) as error:
                told = self._told(error)
            return self._overdue() if guard.expired else told

    def _exchange(
        self, guard: Guard, url: str, cap: Cap, accept: str, parameters: Mapping[str, Any] | None
    ) -> HttpAnswer:
        """Ask, and follow redirects by hand."""
        for _ in range(1 + MOST_REDIRECTS):
            response = self._send(url, accept, parameters)
            try:
                if response.status_code in _REDIRECTS:
                    url = self._redirected(str(response.url), response)
                    continue
                self._check(response)
                body = b"".join(_decoded(response, cap))
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
            raise HttpError(f"is not asked for: {problem}")
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
            raise HttpError(f"redirects to {self.credentials.hide(shown(target))}, which is not followed: {problem}")
        return target

    def _check(self, response: requests.Response) -> None:
        """Raise HttpError where the status is not 2xx."""
        status = response.status_code
        if 200 <= status < 300:
            return
        reason = f"answers {status} ({_phrase(status)})"
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

    def _told(self, error: Exception) -> HttpError:
        """What an error of the libraries says, in words of our own."""
        if isinstance(error, (requests.Timeout, ReadTimeoutError, TimeoutError)):
            seconds = self.patience.timeout
            return HttpError(f"does not answer for timeout={seconds:g} s", of_source=True, transient=True)
        if isinstance(error, requests.exceptions.SSLError):
            reason = "cannot be trusted: its TLS certificate or connection is not valid"
            return HttpError(reason, of_source=True, transient=True)
        if isinstance(error, (ValueError, InvalidURL)):
            return HttpError("is no URL that can be asked")
        if isinstance(error, requests.ConnectionError):
            return HttpError("breaks the connection off", of_source=True, transient=True)
        return HttpError("breaks off before its answer is whole", transient=True)


def picture(client: HttpClient, url: str, key: str, max_bytes: int) -> bytes:
    """Return the picture file that a row's URL leads to.

    Raises:
        ImageError: it is not there, or not to be had within its limits.
        SourceError: its host does not answer, or does not take the credentials.
    """
    try:
        return client.get(url, Cap("max_bytes", max_bytes), accept="image/*, */*;q=0.1").body
    except HttpError as error:
        told = error
    hide = client.credentials.hide
    if told.of_source and not (told.transient and client.answers(url)):
        raise SourceError(f"{hide(shown(url))}: {hide(told.reason)}")
    raise ImageError(key, hide(told.reason))


@dataclass(frozen=True)
class _Wait:
    """Exponential, with jitter; at least what the server asked for."""

    patience: Patience

    def __call__(self, state: RetryCallState) -> float:
        patience = self.patience
        own = wait_exponential(patience.wait, patience.max_wait)(state) + wait_random(0, patience.wait)(state)
        error = state.outcome.exception() if state.outcome is not None else None
        return max(own, error.after if isinstance(error, HttpError) else 0.0)


_opened = threading.local()


def _adapter(private: bool) -> HTTPAdapter:
    """The connections of this thread in this process; those to addresses that are not public are apart."""
    if getattr(_opened, "process", None) != os.getpid():
        _opened.process, _opened.adapters = os.getpid(), {}
    adapters: dict[bool, HTTPAdapter] = _opened.adapters
    if private not in adapters:
        adapters[private] = guarded_adapter()
    return adapters[private]


def _prepared(url: str, parameters: Mapping[str, Any] | None = None) -> requests.PreparedRequest:
    """A request without cookies, proxies and `.netrc`; parameters that the URL has already are left out."""
    known = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    added = {name: value for name, value in (parameters or {}).items() if name not in known}
    return requests.Request("GET", url, params=added).prepare()


def _decoded(response: requests.Response, cap: Cap) -> Iterator[bytes]:
    """The parts of an answer's body, decompressed; never more of them than the cap and one part."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > cap.bytes:
        raise cap.exceeded()
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise HttpError("answers in a compression that was not asked for")
    parts = _received(response)
    total = 0
    for part in parts if encoding in {"", "identity"} else _inflated(parts):
        total += len(part)
        if total > cap.bytes:
            raise cap.exceeded()
        yield part


def _received(response: requests.Response) -> Iterator[bytes]:
    while part := response.raw.read(_CHUNK, decode_content=False):
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
        raise HttpError("breaks off before its answer is whole", transient=True)


def _seconds(text: str) -> float:
    """What a `Retry-After` header asks for: a number of seconds, or the time until a date; 0 where it says nothing."""
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"
