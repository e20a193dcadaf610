"""Bind a socket, and make the server that runs an application on it until a signal ends the process."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from visionadapt.errors import UsageError

_GRACE_SECONDS = 5
_IDLE_SECONDS = 5
_BACKLOG = 1024
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python to itself: the one that computes asks for it at every operation."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, and does not listen yet; port 0 takes a free one.

    Raises:
        UsageError: the port is taken or not allowed, or the host is no address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken; give another --port, or 0 for any" if taken else f"cannot be used ({_told(error)})"
        raise UsageError(f"--port {port} on {host} {reason}") from error
    return bound


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(bound: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def made(app: FastAPI, seconds: float, ready: Callable[[], None]) -> uvicorn.Server:
    """Return a server, whose `run(sockets=[…])` serves until SIGINT or SIGTERM, and finishes what is in progress.

    Args:
        app: the application.
        seconds: within which a new connection has to send a request.
        ready: called when the server answers.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = uvicorn.Config(
        app,
        http=_protocol(seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return _Server(config, ready)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _protocol(seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes connections which send no whole request header in time."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            asyncio.get_running_loop().call_later(seconds, self._close_silent)

        def _close_silent(self) -> None:
            if getattr(self, "cycle", None) is None and not self.transport.is_closing():
                self.transport.close()

    return Protocol


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
