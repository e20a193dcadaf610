"""An S3 server on loopback (moto's), and a proxy before it that fails as asked."""

from __future__ import annotations

import http.client
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from .serving import Reply, Request, Site, serving

BUCKET = "photos"
Fault = Callable[[Request], Reply | None]
"""Returns what to answer instead of the server, or None."""


@dataclass
class Store:
    """A bucket of the server, reached through the proxy.

    Attributes:
        server: address of the server itself.
        site: the proxy, with the requests so far.
        fault: what the proxy does.
    """

    server: str
    site: Site
    fault: Fault = field(default=lambda request: None)

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        status, body, _ = self._ask("PUT", f"/{BUCKET}/{quote(key)}", data)
        assert status == 200, body

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Store the files of a folder below a prefix."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def gets(self) -> list[str]:
        """The paths of all objects that were read."""
        return [each.path for each in self.site.requests if each.path.count("/") > 1 and each.method == "GET"]

    def forward(self, request: Request) -> Reply:
        """Answer as the server does, unless there is a fault."""
        failed = self.fault(request)
        if failed is not None:
            return failed
        kept = {name: text for name, text in request.headers.items() if name.lower() in {"range", "if-match"}}
        path = quote(request.path) + (f"?{urlencode(request.query)}" if request.query else "")
        status, body, headers = self._ask(request.method, path, request.body or None, kept)
        names = ("etag", "content-type", "content-range", "last-modified", "accept-ranges")
        own = {"Content-Length": headers.get("content-length", "0")} if request.method == "HEAD" else {}
        return Reply(body, status, {**own, **{name: headers[name] for name in names if name in headers}})

    def _ask(
        self, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        parts = urlsplit(self.server)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        key = os.environ.get("AWS_ACCESS_KEY_ID", "key")
        signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={key}/20261130/us-east-1/s3/aws4_request"}
        try:
            connection.request(method, path, data, {**signed, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): text for name, text in answer.headers.items()}
        finally:
            connection.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Moto's server on a free port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket `s3://photos`, which the environment leads to by the proxy."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRETKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-word")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with _proxy(s3_server) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened.site.url)
        opened._ask("POST", "/moto-api/reset")
        opened._ask("PUT", f"/{BUCKET}")
        yield opened


@contextmanager
def _proxy(server: str) -> Iterator[Store]:
    store = Store(server, Site("", 0))
    with serving(store.forward) as site:
        store.site = site
        yield store


def sometimes(share: float, seed: int, *faults: Fault) -> Fault:
    """One of some faults, at random, in a share of the requests; never twice in a row for one path."""
    random_number, before = random.Random(seed), set[str]()

    def fault(request: Request) -> Reply | None:
        if request.path in before or random_number.random() >= share:
            before.discard(request.path)
            return None
        before.add(request.path)
        return random_number.choice(faults)(request)

    return fault


def busy(request: Request) -> Reply:
    """The store asks to slow down."""
    return Reply(b"<Error><Code>SlowDown</Code></Error>", 503)


def error(code: str, status: int) -> Fault:
    """The store answers with an error, and repeats the key that was sent."""
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>AKIASECRETKEY</AWSAccessKeyId></Error>"
    return lambda request: Reply(body.encode(), status)


def cut(store: Store) -> Fault:
    """The body stops after its first half."""

    def fault(request: Request) -> Reply:
        plain = Store(store.server, store.site).forward(request)
        assert isinstance(plain.body, bytes)
        headers = {**plain.headers, "Content-Length": str(len(plain.body))}
        return Reply(plain.body[: len(plain.body) // 2], plain.status, headers)

    return fault
