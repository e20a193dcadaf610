"""Connections only to checked addresses, which end when their time is over."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection

from visionadapt.sources.web.public_addresses import addresses_of, is_public


class HttpError(Exception):
    """A request was not made, or not answered as it should be. The message holds no secret.

    Attributes:
        reason: what is wrong, one line without the URL.
        of_source: whether other requests would fail as well, so that it is not this URL's fault.
        transient: whether a repeated request may succeed.
        after: how many seconds the server asks to wait before that.
    """

    def __init__(self, reason: str, *, of_source: bool = False, transient: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.of_source = of_source
        self.transient = transient
        self.after = after


class Guard:
    """Limits one exchange to some addresses and some seconds.

    Attributes:
        expired: whether its time was over before it ended.
    """

    def __init__(self, private: bool, seconds: float) -> None:
        self.private = private
        self.expired = False
        self._ends = time.monotonic() + seconds
        self._handles: list[socket.socket] = []

    def connect(self, host: str, port: int, timeout: float, options: Any) -> socket.socket:
        """Connect to the first address of a host that accepts; all of them are checked before.

        Raises:
            HttpError: the host has no address, one of them is not public and `private` is not set, or none accepts.
        """
        try:
            addresses = addresses_of(host, port)
        except OSError:
            raise HttpError(f"no host {host} is known", of_source=True, transient=True) from None
        for address in addresses:
            if not self.private and not is_public(address):
                raise HttpError(
                    f"{host} has the address {address}, which is not public; private=true allows it (or --private)"
                )
        for address in addresses:
            with suppress(OSError):
                seconds = max(0.001, min(timeout, self._ends - time.monotonic()))
                return create_connection((address, port), seconds, socket_options=options)
        raise HttpError(f"{host} accepts no connection at port {port}", of_source=True, transient=True)

    def watch(self, connected: socket.socket) -> None:
        """End a connection as well when the time is over, even if its own handle is closed or wrapped by then."""
        self._handles.append(socket.fromfd(connected.fileno(), connected.family, connected.type))

    def expire(self) -> None:
        """End every connection, whatever it is waiting for."""
        self.expired = True
        for handle in self._handles:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the connections."""
        for handle in self._handles:
            handle.close()


@contextmanager
def guarded(private: bool, seconds: float) -> Iterator[Guard]:
    """Guard the connections of this thread until the block ends."""
    guard = Guard(private, seconds)
    timer = threading.Timer(seconds, guard.expire)
    timer.daemon = True
    token = _guard.set(guard)
    timer.start()
    try:
        yield guard
    finally:
        timer.cancel()
        timer.join()
        guard.close()
        _guard.reset(token)


def guarded_adapter() -> HTTPAdapter:
    """Return an adapter that sends requests over such connections; use it only inside of `guarded`."""
    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return adapter


_guard: ContextVar[Guard] = ContextVar("guard")


class _Guarded(HTTPConnection):
    """Takes its socket from the guard, which watches every exchange over it."""

    def _new_conn(self) -> socket.socket:
        guard = _guard.get()
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else float("inf")
        connected = guard.connect(self.host, self.port or self.default_port, timeout, self.socket_options)
        guard.watch(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _guard.get().watch(self.sock)
        super().request(*args, **kwargs)


class _GuardedTls(_Guarded, HTTPSConnection):
    """The same for https: the certificate is checked against the host's name."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a line of the log is not about a guarded request: such a line would hold a URL with its query."""
    return _guard.get(None) is None


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_of_others)
