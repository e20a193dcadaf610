"""Servers that are slow, endless, lying or redirecting: each is bounded, and its fault is reported."""

from __future__ import annotations

import gzip
import itertools
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import ImageDataset
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError, SourceError
from visionadapt.images import Augmentation, ResizeAdapter, compose
from visionadapt.sources import ApiSource
from visionadapt.sources.web import guarded_connections, public_addresses
from visionadapt.sources.web.client import HttpClient, Patience, Wanted
from visionadapt.sources.web.guarded_connections import HttpError

from .serving import Reply, Request, Site, page, serving

QUICK = {"private": True, "wait": 0.0, "retries": 1, "timeout": 5.0, "deadline": 5.0}


def dripping(pause: float = 0.02) -> Iterator[bytes]:
    """A byte now and then, forever."""
    for _ in itertools.count():
        yield b"x"
        time.sleep(pause)


def endless() -> Iterator[bytes]:
    """Endless bytes, as fast as they are read."""
    return itertools.repeat(b"x" * 65536)


BOMB = gzip.compress(bytes(1 << 24))
"""A few kilobytes of gzip that expand to very many."""


def first(site: Site, **settings: Any) -> tuple[ApiSource, Record]:
    """A source with one image, and its record."""
    api = ApiSource(f"{site.url}/items", "image", **{**QUICK, **settings})
    return api, next(iter(api))


ONE = {"/items": lambda _: page([{"image": "/image"}])}

REASONS: dict[str, tuple[Callable[[Request], Reply], str]] = {
    "slow": (lambda _: Reply(dripping()), "takes longer than deadline=0.3 s"),
    "endless": (lambda _: Reply(endless()), "has more than 10,000 bytes, the limit max_bytes="),
    "said to be large": (lambda _: Reply(b"x", headers={"Content-Length": "9" * 30}), "has more than 10,000 bytes"),
    "said to be longer": (
        lambda _: Reply(b"x" * 9, headers={"Content-Length": "99"}),
        "stops before its answer is",
    ),
    "a bomb": (lambda _: Reply(BOMB, headers={"Content-Encoding": "gzip"}), "has more than 10,000 bytes"),
    "half a gzip": (
        lambda _: Reply(gzip.compress(b"text")[:-4], headers={"Content-Encoding": "gzip"}),
        "stops before",
    ),
    "no gzip": (lambda _: Reply(b"text", headers={"Content-Encoding": "gzip"}), "is said to be compressed, and is not"),
    "another compression": (lambda _: Reply(b"x", headers={"Content-Encoding": "br"}), "that was not asked for"),
    "gone": (lambda _: Reply(status=404), "answers 404 (Not Found)"),
    "an odd status": (lambda _: Reply(status=499), "answers 499 (an unknown status)"),
    "always failing": (lambda _: Reply(status=500), "answers 500 (Internal Server Error)"),
    "always busy, alone": (lambda _: Reply(status=503), "answers 503 (Service Unavailable)"),
    "a circle": (lambda _: Reply(status=302, headers={"Location": "/image"}), "redirects more than 5 times"),
    "to another host": (
        lambda _: Reply(status=301, headers={"Location": "http://localhost/?word=secret"}),
        "redirects to http://localhost/, which is not followed: its host localhost is not allowed; hosts=localhost",
    ),
    "to another port": (
        lambda _: Reply(status=307, headers={"Location": "http://127.0.0.1:1/"}),
        "redirects to http://127.0.0.1:1/, which is not followed: its host 127.0.0.1:1 is not allowed",
    ),
    "to a file": (
        lambda _: Reply(status=308, headers={"Location": "file:///etc/passwd"}),
        "redirects to file:…, which is not followed: it is no http or https URL",
    ),
    "with a password": (
        lambda _: Reply(status=303, headers={"Location": "http://me:secret@127.0.0.1/"}),
        "redirects to http://127.0.0.1/, which is not followed: it holds a user or a password",
    ),
    "to nothing": (lambda _: Reply(status=302, headers={"Location": "http://["}), "redirects to what is no URL"),
}


@pytest.mark.parametrize("case", REASONS)
def test_an_unavailable_image_is_reported_and_the_others_are_read(case: str) -> None:
    answer, reason = REASONS[case]
    with serving({**ONE, "/image": answer}) as site:
        api, record = first(site, max_bytes=10_000, deadline=0.3 if case == "slow" else 5.0)
        began = time.monotonic()
        with pytest.raises(ImageError) as told:
            api.read(record)
        assert time.monotonic() - began < 3
    assert told.value.file == "image" and reason in told.value.reason and "secret" not in str(told.value)


@pytest.mark.parametrize("case", REASONS)
def test_an_unavailable_page_is_reported(case: str) -> None:
    answer, reason = REASONS[case]
    with serving({"/items": answer, "/image": answer}) as site, pytest.raises(SourceError) as told:
        first(site, max_page_bytes=10_000, deadline=0.3 if case == "slow" else 5.0)
    reason = reason.replace("max_bytes=", "max_page_bytes=")
    assert str(told.value).startswith(f"{site.url}/items: ") and reason in str(told.value)
    assert "secret" not in str(told.value)


def test_compressed_answers_within_the_limits_are_read() -> None:
    data = bytes(range(256)) * 600
    packed = {"gzip": gzip.compress(data), "x-gzip": gzip.compress(data), "deflate": zlib.compress(data)}
    for name, body in packed.items():
        with serving({**ONE, "/image": lambda _, b=body, n=name: Reply(b, headers={"Content-Encoding": n})}) as site:
            api, record = first(site, max_bytes=len(data))
            assert api.read(record) == data


def test_a_server_that_never_finishes_its_headers_is_abandoned() -> None:
    def talk(listener: socket.socket) -> None:
        with listener.accept()[0] as peer:
            peer.recv(10_000)
            peer.sendall(b"HTTP/1.1 200 OK\r\n")
            for number in range(100):
                try:
                    peer.sendall(f"X-{number}: {number}\r\n".encode())
                except OSError:
                    return
                time.sleep(0.03)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=talk, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/items"
        with pytest.raises(SourceError, match=r"takes longer than deadline=0\.3 s"):
            list(ApiSource(url, "image", **{**QUICK, "deadline": 0.3}))


def test_an_unreachable_source_is_not_an_image_s_fault() -> None:
    with serving({**ONE, "/image": lambda _: Reply(b"x")}) as site:
        api, record = first(site, retries=0)
    with pytest.raises(
        SourceError, match=rf"^{site.url}/image: 127\.0\.0\.1 accepts no connection at port {site.port}$"
    ):
        api.read(record)
    with serving(lambda request: ONE["/items"](request) if request.path == "/items" else Reply(status=503)) as site:
        api, record = first(site)
        with pytest.raises(SourceError, match=r"/image: answers 503 \(Service Unavailable\)$"):
            api.read(record)
    with pytest.raises(SourceError, match=r"no-such-host\.invalid/items: no host no-such-host\.invalid is known"):
        list(ApiSource("http://no-such-host.invalid/items", "image", **QUICK))


def test_a_source_that_fails_in_a_worker_is_reported_in_one_line() -> None:
    with serving(lambda request: ONE["/items"](request) if request.path == "/items" else Reply(status=503)) as site:
        api, _ = first(site)
        dataset = ImageDataset(Manifest(api, api), compose(ResizeAdapter(8)), Augmentation("none"))
        with pytest.raises(SourceError, match=rf"^{site.url}/image: answers 503 \(Service Unavailable\)$"):
            list(samples(dataset, workers=1))


def test_waits_double_and_follow_the_server_within_the_limit() -> None:
    waits: list[float] = []
    busy = [Reply(status=status) for status in (503, 500, 502, 504, 408)]
    replies = iter([*busy, Reply(status=429, headers={"Retry-After": "7"}), Reply(b"x")])
    with serving(lambda _: next(replies)) as site:
        patience = Patience(retries=6, wait=0.5, max_wait=8.0)
        client = HttpClient(home=site.url, private=True, patience=patience, sleep=waits.append)
        assert client.get(site.url, Wanted("", 10)).body == b"x"
    for wait, least in zip(waits, (0.5, 1, 2, 4, 8, 8), strict=True):
        assert least <= wait <= least + 0.5


@pytest.mark.parametrize("after", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_server_that_asks_for_a_long_wait_is_not_contacted_again(after: str) -> None:
    with serving(lambda _: Reply(status=429, headers={"Retry-After": after})) as site:
        with pytest.raises(
            SourceError, match=r"answers 429 \(Too Many Requests\) and asks to wait [\d,]+ s, more than"
        ):
            list(ApiSource(site.url, "image", **{**QUICK, "retries": 5}))
        assert len(site.requests) == 1


@pytest.mark.parametrize("after", ["", "soon", "-1", "Wed, 21 Oct 1998 07:28:00 GMT"])
def test_an_unreadable_wait_is_none(after: str) -> None:
    replies = iter([Reply(status=429, headers={"Retry-After": after}), page([{"image": "a"}])])
    with serving(lambda _: next(replies)) as site:
        assert len(list(ApiSource(site.url, "image", **QUICK))) == 1


def test_redirects_within_the_allowed_hosts_are_followed() -> None:
    with serving({"/image": lambda _: Reply(b"there")}) as other:
        routes = {
            "/items": lambda _: Reply(status=301, headers={"Location": "/lists/items"}),
            "/lists/items": lambda _: page([{"image": "a"}, {"image": f"{other.url}/image"}]),
            "/lists/a": lambda _: Reply(status=302, headers={"Location": f"{other.url}/image"}),
        }
        with serving(routes) as site:
            api = ApiSource(f"{site.url}/items", "image", hosts=f"127.0.0.1:{other.port}", **QUICK)
            assert [(record.key, api.read(record)) for record in api] == [
                (f"127.0.0.1:{other.port}/image", b"there"),
                ("lists/a", b"there"),
            ]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        *(
            (address, False)
            for address in (
                *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1"),
                *("169.254.169.254", "192.0.0.192", "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
                *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
                *("::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1"),
                *("2002:7f00:1::", "2002:a01:203::1", "2001:0:7f00:1::", "2001:db8::1"),
            )
        ),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::5db8:d70e", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert public_addresses.is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "0"])
def test_private_addresses_are_refused_however_they_are_written(host: str) -> None:
    with serving(one_row) as site:
        message = r"has the address [\d.:a-f]+, which is not public; private=true allows it|no host .* is known"
        with pytest.raises(SourceError, match=message):
            list(ApiSource(f"http://{host}:{site.port}/items", "image", retries=0))
        assert not site.connections


def one_row(request: Request) -> Reply:
    return page([{"image": "a"}])


@pytest.fixture
def home_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat 127.0.0.1 as a public address, and no other of this machine's."""
    monkeypatch.setattr(guarded_connections, "is_public", lambda address: address == "127.0.0.1")


@pytest.mark.usefixtures("home_is_public")
def test_a_redirect_to_a_private_address_is_refused() -> None:
    def inwards(request: Request) -> Reply:
        return Reply(status=302, headers={"Location": f"{inner.url}/items"})

    with serving(one_row, host="127.0.0.2") as inner, serving(inwards) as site:
        settings = {**QUICK, "private": False, "hosts": f"127.0.0.2:{inner.port}"}
        with pytest.raises(SourceError, match=r"127\.0\.0\.2 has the address 127\.0\.0\.2, which is not public"):
            list(ApiSource(f"{site.url}/items", "image", **settings))
        assert not inner.connections


@pytest.mark.usefixtures("home_is_public")
def test_a_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    own, asked = socket.getaddrinfo, []

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "rebinding.example":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return own(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with serving(one_row) as site, serving(one_row, "127.0.0.2", site.port) as inner:
        client = HttpClient(home=f"http://rebinding.example:{site.port}/", patience=Patience(retries=0))
        assert client.get(str(client.home), Wanted("", 1000)).body
        assert site.requests[0].headers["Host"] == f"rebinding.example:{site.port}"
        site.requests.clear()
        connections_before = site.connections
        client.get(str(client.home), Wanted("", 1000))
        assert site.connections == connections_before and asked == ["rebinding.example"]
        answer: list[str] = []
        other = threading.Thread(target=lambda: answer.append(refused(client)))
        other.start()
        other.join()
        assert re.search(r"rebinding\.example has the address 127\.0\.0\.2, which is not public", answer[0])
        assert not inner.connections


def refused(client: HttpClient) -> str:
    try:
        client.get(str(client.home), Wanted("", 1000))
    except HttpError as error:
        return error.reason
    return ""
