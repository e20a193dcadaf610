"""Secrets for an API: they arrive there, and appear nowhere else."""

from __future__ import annotations

import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from visionadapt.core import spec
from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError, SourceError, SpecError
from visionadapt.sources import ApiSource

from .serving import Reply, Request, Site, page, serving

CANARY = "canary-4f1c/9 +é".encode().hex() + "/+=&"
QUOTED = CANARY.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D").replace("&", "%26")
SECRETS = {
    "token": "API_TOKEN",
    "secret_headers": {"X-Key": "API_KEY"},
    "secret_parameters": {"key": "API_KEY"},
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", f"token-{CANARY}")
    monkeypatch.setenv("API_KEY", CANARY)


def secret(site: Site, **settings: Any) -> ApiSource:
    return ApiSource(
        f"{site.url}/items", "image", **{"private": True, "wait": 0.0, "retries": 0, **SECRETS, **settings}
    )


def is_authorised(request: Request) -> bool:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers.get("authorization") == f"Bearer token-{CANARY}" and headers.get("x-key") == CANARY


def is_clean(*texts: object) -> bool:
    return not any(form in str(text) for form in (CANARY, QUOTED, CANARY[:16]) for text in texts)


def whole(error: BaseException) -> str:
    """An error with its traceback, causes and contexts, including suppressed ones."""
    told = "".join(traceback.format_exception(error))
    while (inner := error.__cause__ or error.__context__) is not None:
        told += "".join(traceback.format_exception(inner)) + repr(vars(inner))
        error = inner
    return told + repr(vars(error))


def test_secrets_arrive_and_appear_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: Request) -> Reply:
        if request.path != "/items":
            return Reply(b"image", 200 if is_authorised(request) else 401)
        if not is_authorised(request) or request.query.get("key") != CANARY:
            return Reply(status=401)
        echo = {"label": f"a {CANARY}", "note": f"with {CANARY}", "link": f"http://me:word@host/?sign={QUOTED}"}
        more = {} if "from" in request.query else {"Link": f'</items?from=1&key={QUOTED}>; rel="next"'}
        rows = [{"image": f"{len(more)}{name}/{QUOTED}.jpg?sign={QUOTED}", **echo} for name in request.query]
        return page(rows, **more)

    caplog.set_level(logging.DEBUG)
    with serving(answer) as site:
        api = secret(site, label="label")
        manifest = Manifest(api, api)
        assert [manifest.read(index) for index in range(len(manifest))] == [b"image"] * 3
        assert [request.query for request in site.requests[:2]] == [{"key": CANARY}, {"from": "1", "key": CANARY}]
        assert all("key" not in request.query for request in site.requests[2:])
        records = list(api)
        assert {record.label for record in records} == {"a ***"} and records[0].columns["link"] == "http://…@host/?…"
        assert is_clean(records, api, repr(api), str(api), spec.format(api, "source"), repr(manifest), caplog.text)
        assert is_clean(
            api.classes, api._client, pickle.dumps(ApiSource(f"{site.url}/items", "image", private=True, **SECRETS))
        )


def test_no_other_host_gets_them() -> None:
    def elsewhere(request: Request) -> Reply:
        return Reply(b"image")

    def answer(request: Request) -> Reply:
        if request.path == "/items":
            return page([{"image": f"{other.url}/a.jpg"}, {"image": "b.jpg"}], Link=f'<{other.url}/more>; rel="next"')
        return Reply(status=307, headers={"Location": f"{other.url}/b.jpg"})

    with serving(lambda request: page([]) if request.path == "/more" else elsewhere(request)) as other:
        with serving(answer) as site:
            api = secret(site, hosts=f"127.0.0.1:{other.port}")
            assert [api.read(record) for record in api] == [b"image"] * 2
            assert all(is_authorised(request) for request in site.requests)
        assert len(other.requests) == 3
        assert is_clean(*((request.query, request.headers) for request in other.requests))


def broken(peer: socket.socket) -> None:
    """An answer with a malformed header, which urllib3 would log with the URL."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nno header\r\n\r\nxyz")


FAILURES: dict[str, Callable[[Request], Reply]] = {
    "unauthorised": lambda _: Reply(status=401),
    "failing": lambda request: Reply(f"{request.query}".encode(), status=500),
    "no JSON": lambda request: Reply(f"{request.query} {request.headers}".encode()),
    "other rows": lambda request: page({"url": request.query, request.query["key"]: 1}),
    "cut short": lambda request: Reply(b"x", headers={"Content-Length": "9"}),
    "leading away": lambda request: Reply(status=302, headers={"Location": f"http://host/{QUOTED}?key={QUOTED}"}),
    "leading to a password": lambda request: Reply(status=302, headers={"Location": f"http://a:{QUOTED}@127.0.0.1/"}),
    "a circle": lambda request: page([], Link=f'<?key={QUOTED}>; rel="next"'),
    "a next page elsewhere": lambda request: page([], Link=f'<http://host/{QUOTED}?key={QUOTED}>; rel="next"'),
    "a part": lambda request: page([{"image": "a", "split": request.query["key"]}]),
}


@pytest.mark.parametrize("case", FAILURES)
def test_no_error_shows_them(case: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(FAILURES[case]) as site, pytest.raises(SourceError) as told:
        list(secret(site, split="split"))
    assert is_clean(whole(told.value), caplog.text)
    if case == "unauthorised":
        assert "answers 401 (Unauthorized); see the environment variables that token=," in str(told.value)


def test_no_log_shows_them_when_an_answer_is_malformed(caplog: pytest.LogCaptureFixture) -> None:
    def talk(listener: socket.socket) -> None:
        with listener.accept()[0] as peer:
            peer.recv(10_000)
            broken(peer)

    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        with pytest.raises(SourceError) as told:
            list(secret(Site(f"http://127.0.0.1:{listener.getsockname()[1]}", 0)))
        thread.join()
    assert is_clean(whole(told.value), caplog.text) and not caplog.records


def test_no_image_s_error_shows_them() -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/items":
            return page([{"image": f"/{status}?sign={QUOTED}"} for status in (404, 401)])
        return Reply(QUOTED.encode(), int(request.path[1:]))

    with serving(answer) as site:
        api = secret(site)
        refused, missing = api
        with pytest.raises(ImageError, match=r"^404: answers 404 \(Not Found\)$") as gone:
            api.read(missing)
        with pytest.raises(SourceError, match=r"/401: answers 401") as unauthorised:
            api.read(refused)
    assert is_clean(whole(gone.value), whole(unauthorised.value))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": f"https://me:{QUOTED}@host/items"}, "a URL must hold no user and no password; set an environment"),
        ({"url": f"https://{QUOTED}@host/items"}, "a URL must hold no user and no password"),
        ({"url": f"https://host/items?key={QUOTED}"}, "give the URL without its query, as parameters="),
        ({"url": f"https://host/items#{QUOTED}"}, "give the URL without its query"),
        ({"url": f"ftp://me:{QUOTED}@host/"}, "ftp://host/: give the http or https URL"),
        ({"url": f"https://me:{QUOTED}@host:port/"}, "give the http or https URL"),
        ({"token": CANARY}, "token= must be the name of an environment variable, not the secret itself"),
        ({"secret_headers": {"X": CANARY}}, "secret_headers={X: …} must be the name of an environment variable"),
        ({"secret_parameters": {"x": CANARY}}, "secret_parameters={x: …} must be the name of an environment"),
        ({"hosts": f"me:{CANARY}@host"}, "hosts= must name each host as host or host:port"),
    ],
)
def test_secrets_in_the_wrong_place_are_refused_and_not_shown(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError) as told:
        ApiSource(**{"url": "https://host/items", "image": "image", **settings})
    assert message in str(told.value) and is_clean(whole(told.value))


def test_a_text_that_cannot_be_read_shows_no_password() -> None:
    with pytest.raises(SpecError) as told:
        spec.parse(f"api('https://me:{QUOTED}@host/items?key={QUOTED}', imaeg=image)", "source")
    assert "'imaeg'; did you mean 'image'?" in str(told.value) and is_clean(whole(told.value))


@pytest.mark.parametrize("value", [None, "", " \n", "two\nlines", "é", "a\0b"])
def test_a_variable_that_no_request_can_carry_is_reported(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN")
    if value is not None and "\0" not in value:
        monkeypatch.setenv("API_TOKEN", value)
    with serving({}) as site:
        with pytest.raises(
            SourceError, match=r"the environment variable that token= names (is not set|holds characters)"
        ):
            list(secret(site))
        assert not site.requests


def test_values_are_read_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: page([{"image": "a"}])) as site:
        api = secret(site)
        list(api)
        monkeypatch.setenv("API_KEY", "another")
        api.read(next(iter(api)))
        assert [request.headers["X-Key"] for request in site.requests] == [CANARY, "another"]
