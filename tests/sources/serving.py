"""A real web server in this process: every path is answered by a function."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """A request: the path without its query, the query's parameters, the headers, the method, and what is sent."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """A reply: `body` as it is, with its length unless `headers` give another; or in pieces, without a length."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Reply]


@dataclass
class Site:
    """A running server: its address, and the requests so far."""

    url: str
    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def paths(self) -> list[str]:
        """The requested paths."""
        return [request.path for request in self.requests]


def page(rows: object, **headers: str) -> Reply:
    """A page of JSON."""
    return Reply(json.dumps(rows).encode(), headers={"Content-Type": "application/json", **headers})


@contextmanager
def serving(answer: Answer | Mapping[str, Answer], host: str = "127.0.0.1", port: int = 0) -> Iterator[Site]:
    """Run a server until the block ends; a mapping answers its paths, and 404 for all others."""
    site = Site("", 0)
    with _Server((host, port), _Handler) as server:
        server.site, server.answer = site, answer if callable(answer) else _by_path(answer)
        site.url, site.port = f"http://{host}:{server.server_port}", server.server_port
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield site
        finally:
            server.shutdown()
            for peer in server.peers:
                with suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)


def _by_path(answers: Mapping[str, Answer]) -> Answer:
    return lambda request: answers[request.path](request) if request.path in answers else Reply(status=404)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    site: Site
    answer: Answer

    def __init__(self, *args: Any) -> None:
        self.peers: list[socket.socket] = []
        super().__init__(*args)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that goes away is what these tests are about
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        self.server.site.connections += 1
        self.server.peers.append(self.request)
        super().setup()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(unquote(parts.path), query, dict(self.headers), self.command, body)
        self.server.site.requests.append(request)
        self._send(self.server.answer(request))

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that the base class calls

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        whole = reply.body if isinstance(reply.body, bytes) else b""
        own = {"Content-Length": str(len(whole))} if isinstance(reply.body, bytes) else {"Connection": "close"}
        headers = {**own, **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for part in () if self.command == "HEAD" else (whole,) if isinstance(reply.body, bytes) else reply.body:
            self.wfile.write(part)
        self.close_connection |= self.command != "HEAD" and int(headers.get("Content-Length", "0")) > len(whole)

    def log_message(self, *args: Any) -> None:
        pass
