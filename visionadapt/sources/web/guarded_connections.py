"""Connections that go to checked addresses only, and end when their time is over."""

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

from visionadapt.sources.web.public_addresses import addresses_of, is_public


class AddressRefusedError(Exception):
    """A host has an address that must not be asked; the text says which."""


class UnreachableError(Exception):
    """A host has no address, or none of its addresses takes a connection; the text says which."""


class Guard:
    """What one exchange is allowed: which addresses, and until when.

    Attributes:
        expired: whether its time ended before it did.
    """

    def __init__(self, private: bool, seconds: float) -> None:
        self.private = private
        self.expired = False
        self._ends = time.monotonic() + seconds
        self._handles: list[socket.socket] = []

    def connect(self, host: str, port: int, timeout: float, options: Any) -> socket.socket:
        """A connection to the first address of a host that takes one; all of them are checked before.

        Raises:
            AddressRefusedError: one of them is not public, and `private` is not set.
            UnreachableError: there is none.
        """
        try:
            addresses = addresses_of(host, port)
        except OSError:
            raise UnreachableError(f"no host {host} is known") from None
        for address in addresses:
            if not self.private and not is_public(address):
                raise AddressRefusedError(f"{host} has the address {address}, which is not public")
        for address in addresses:
            with suppress(OSError):
                return _connected(address, port, max(0.001, min(timeout, self._ends - time.monotonic())), options)
        raise UnreachableError(f"{host} takes no connection at port {port}")

    def watch(self, connected: socket.socket) -> None:
        """End a connection as well when the time is over, even if its own handle is closed or wrapped meanwhile."""
        self._handles.append(socket.fromfd(connected.fileno(), connected.family, connected.type))

    def expire(self) -> None:
        """End every connection, whatever it is waiting for."""
        self.expired = True
        for handle in self._handles:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connections."""
        for handle in self._handles:
            handle.close()


@contextmanager
def guarded(private: bool, seconds: float) -> Iterator[Guard]:
    """Let the connections of this thread be guarded until the block ends."""
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
    """What sends requests over such connections; to be used inside of `guarded` alone."""
    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return adapter


_guard: ContextVar[Guard] = ContextVar("guard")


class _Guarded(HTTPConnection):
    """Takes its socket from the guard, and lets every exchange over it be watched."""

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


def _connected(address: str, port: int, timeout: float, options: Any) -> socket.socket:
    connected = socket.create_connection((address, port), timeout)
    for option in options or ():
        connected.setsockopt(*option)
    return connected


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about no request of ours: such a line would hold a URL with its query."""
    return _guard.get(None) is None


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_is_of_others)
