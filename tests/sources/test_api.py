"""`ApiSource`: the same records from every kind of page, and faults in an answer reported with their row."""

from __future__ import annotations

import base64
import builtins
import json
import multiprocessing
import pickle
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core import spec
from visionadapt.core.records import LocalSource, Manifest, Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import ApiSource, FolderSource, TableSource
from visionadapt.sources.web.image_fields import decoded, plain_key

from .serving import Reply, Request, Site, page, serving
from .test_folder import make

Answer = Callable[[Request], Reply]
ROWS = tuple(
    {"image": {"url": f"/images/{name}/{number}.jpg"}, "kind": name, "who": {"id": number % 2}, "note": f"n{number}"}
    for name in ("hat", "shoe")
    for number in (1, 2, 10)
)


def source(site: Site, path: str = "/items", **settings: Any) -> ApiSource:
    return ApiSource(site.url + path, **{"image": "image.url", "private": True, "wait": 0.0, **settings})


def one_page(rows: object) -> dict[str, Answer]:
    return {"/items": lambda _: page(rows)}


def counted(request: Request) -> Reply:
    """Three pages of two rows by their number, in an object."""
    number = int(request.query["page"])
    return page({"data": {"items": ROWS[2 * number - 2 : 2 * number]}, "page": number})


def by_cursor(request: Request) -> Reply:
    """The same by a cursor, which the last page lacks."""
    start = int(request.query.get("after", "0"))
    following = {"next": start + 2} if start + 2 < len(ROWS) else {"next": None}
    return page({"items": ROWS[start : start + 2], "paging": following})


def by_url(request: Request) -> Reply:
    """The same by the next page's URL in the answer."""
    start = int(request.query.get("from", "0"))
    following = f"items?from={start + 2}" if start + 2 < len(ROWS) else ""
    return page({"results": ROWS[start : start + 2], "next": following})


def by_link(request: Request) -> Reply:
    """The same by the `Link` header (RFC 8288)."""
    start = int(request.query.get("from", "0"))
    link = {"Link": f'</items?from={start + 2}>; rel="next", </items>; rel="first"'} if start + 2 < len(ROWS) else {}
    return page(ROWS[start : start + 2], **link)


PAGES: Mapping[str, tuple[Answer, dict[str, Any], int]] = {
    "counted": (counted, {"rows": "data.items", "page": "page"}, 4),
    "cursor": (by_cursor, {"rows": "items", "cursor": "after", "next": "paging.next"}, 3),
    "url": (by_url, {"rows": "results", "next": "next"}, 3),
    "link": (by_link, {}, 3),
    "one": (lambda _: page(ROWS), {}, 1),
}


@pytest.mark.parametrize("kind", PAGES)
def test_every_way_of_paging_gives_the_same_records(kind: str) -> None:
    answer, settings, requests = PAGES[kind]
    with serving({"/items": answer}) as site:
        api = source(site, label="kind", group="who.id", **settings)
        assert api.classes == ("hat", "shoe")
        assert list(api) == [
            Record(
                f"images/{name}/{number}.jpg",
                (name,),
                group=str(number % 2),
                location=f"{site.url}/images/{name}/{number}.jpg",
                columns={"who": json.dumps({"id": number % 2}), "note": f"n{number}"},
            )
            for name in ("hat", "shoe")
            for number in (1, 2, 10)
        ]
        assert list(api) == list(api)
        assert len(site.requests) == requests
        assert site.connections == 1


@pytest.mark.parametrize("kind", PAGES)
def test_a_busy_server_is_asked_again(kind: str) -> None:
    answer, settings, _ = PAGES[kind]
    troubles = [Reply(status=500), Reply(status=429, headers={"Retry-After": "0"}), Reply(status=503), Reply(b"{", 502)]

    def troubled(request: Request) -> Reply:
        turn = len(site.requests)
        return troubles[turn % 2 + 2 * (turn > 2)] if turn in {1, 2, 4, 5} else answer(request)

    with serving(answer) as site:
        wanted = list(source(site, **settings))
    with serving(troubled) as site:
        assert [record.key for record in source(site, **settings)] == [record.key for record in wanted]


def test_the_order_is_that_of_the_keys_whatever_the_servers() -> None:
    with serving(one_page(ROWS)) as site, serving(one_page(ROWS[::-1])) as other:
        keys = [[record.key for record in source(place)] for place in (site, other)]
    assert keys[0] == keys[1] == [row["image"]["url"].lstrip("/") for row in ROWS]


def test_an_api_a_table_and_a_folder_name_the_same_rows(tmp_path: Path) -> None:
    files = ("hat/1.jpg", "hat/2.jpg", "hat/10.jpg", "hat a/1.jpg", "shoe/b/é 1.jpg", "shoe/b#1.jpg")
    folder = FolderSource(make(tmp_path / "data", *files))
    rows = [{"key": record.key, "image": {"url": f"data/{record.key}"}, "kind": record.label} for record in folder]
    rows[-1]["image"]["url"] = rows[-1]["image"]["url"].replace("#", "%23")
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps({**row, "image": row["key"]}) + "\n" for row in rows))
    table = TableSource(tmp_path / "labels.jsonl", "image", "kind", root=tmp_path / "data")

    def answer(request: Request) -> Reply:
        inside = tmp_path / request.path.lstrip("/")
        return page(rows[::-1]) if request.path == "/items" else Reply(inside.read_bytes())

    with serving(answer) as site:
        api = source(site, label="kind", key="key")
        contents = [[(row.key, row.labels, one.read(row)) for row in one] for one in (folder, table, api)]
        bare = [record.key for record in source(site)]
    assert contents[0] == contents[1] == contents[2]
    assert bare == [f"data/{record.key}" for record in folder]


def test_settings_as_text_in_a_file_and_in_a_worker() -> None:
    with serving({"/items": counted, "/images/hat/1.jpg": lambda _: Reply(b"1")}) as site:
        text = (
            f"api({site.url}/items, image=image.url, label=kind, rows=data.items, page=page, labels={{hat: Hat}}, "
            "drop=[shoe], hosts=images.example.org, private=true, parameters={per_page: 2}, token=MY_TOKEN, retries=0, "
            "secret_headers={X-Key: MY_KEY}, secret_parameters={key: MY_KEY})"
        )
        written = spec.parse(text, "source")
        assert isinstance(written, ApiSource) and isinstance(written, LocalSource)
        assert (written.name, written.private, written.hosts) == ("items", True, ("images.example.org",))
        assert spec.parse(spec.format(written, "source"), "source") == written == written.resolved()
        assert spec.format(written, "source").startswith(f"api({site.url}/items, image=image.url, label=kind, ")

        api = source(site, rows="data.items", page="page", label="kind", labels={"hat": "Hat"}, drop="shoe")
        manifest = Manifest(api, api)
        asked = len(site.requests)
        again = pickle.loads(pickle.dumps(api))
        assert again == api and list(again) == list(api) and again.classes == ("Hat",)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            assert pool.submit(manifest.read, 0).result() == again.read(next(iter(again))) == b"1"
        assert len(site.requests) == asked + 2
        assert [record.problem for record in api][3:] == [f"dropped: its label is 'shoe' (row {n})" for n in (4, 5, 6)]


def test_no_row_vanishes() -> None:
    rows: list[Any] = [
        {"image": "a.jpg", "label": "hat"},
        {"image": None, "label": "hat"},
        {"label": "hat"},
        "text",
        {"image": ["b.jpg", "c.jpg"], "label": "hat"},
        {"image": "https://other.example/a.jpg", "label": "hat"},
        {"image": "file:///etc/passwd", "label": "hat"},
        {"image": "https://me:word@other.example/b.jpg", "label": "shoe"},
        {"image": "a.jpg#part", "label": "hat"},
        {"image": "b.jpg", "label": "hat"},
        {"image": "b.jpg", "label": "shoe"},
        {"image": "http://[", "label": "hat"},
        {"image": "d.jpg", "label": ["hat", "shoe", "hat"]},
    ]
    with serving(one_page(rows)) as site:
        api = source(site, image="image", label="label")
        found = {record.key: record for record in api}
    assert len(found) == len(rows)
    assert {key: record.problem for key, record in found.items() if record.problem} == {
        "items, row 2": "names no image (row 2)",
        "items, row 3": "names no image (row 3)",
        "items, row 4": "is no JSON object (row 4)",
        "items, row 5": "names several images (row 5)",
        "other.example/a.jpg": "is not requested: its host other.example is not allowed; hosts=other.example allows it "
        "(row 6)",
        "etc/passwd": "is not requested: it is no http or https URL (row 7)",
        "other.example/b.jpg": "is not requested: it holds a user or a password (row 8)",
        "a.jpg#2": "stands in row 1 already (row 9)",
        "b.jpg": "row 10 and row 11 give it different labels; if it has all of them, give merge=true (row 10)",
        "b.jpg#2": "row 10 and row 11 give it different labels; if it has all of them, give merge=true (row 11)",
        "items, row 12": "names no URL (row 12)",
    }
    assert found["d.jpg"].labels == ("hat", "shoe") and found["other.example/b.jpg"].labels == ("shoe",)
    assert api.classes == ("hat", "shoe")


def test_urls_that_differ_only_in_their_query_are_several_images() -> None:
    rows = [{"image": f"show?id={number}"} for number in (1, 2, 1, 3)]
    with serving(
        {"/items": lambda _: page(rows), "/show": lambda request: Reply(request.query["id"].encode())}
    ) as site:
        api = source(site, image="image")
        assert {record.key: record.problem for record in api} == {
            "show": None,
            "show?2": None,
            "show#2": "stands in row 1 already (row 3)",
            "show?3": None,
        }
        assert [api.read(record) for record in api if record.problem is None] == [b"1", b"2", b"3"]
        assert {record.location for record in api} == {f"{site.url}/show"}


def test_a_version_changes_with_the_url_or_another_field() -> None:
    rows: list[dict[str, str]] = []
    versions = []
    with serving({"/items": lambda _: page(rows)}) as site:
        for image, changed in (("show?id=1", "monday"), ("show?id=1", "monday"), ("show?id=2", "monday")):
            rows[:] = [{"image": image, "changed": changed}]
            api = source(site, image="image")
            versions.append(api.version_of(next(iter(api))))
        rows[:] = [{"image": "show?id=2", "changed": "tuesday"}]
        api = source(site, image="image")
        versions.append(api.version_of(next(iter(api))))
    assert versions[0] == versions[1] and len({*versions}) == 3


@pytest.mark.parametrize("form", ["base64", "wrapped", "web", "data URI", "quoted data URI"])
def test_images_inside_the_answer(form: str) -> None:
    data = bytes(range(256))
    plain = base64.b64encode(data).decode()
    texts = {
        "base64": plain,
        "wrapped": "\n".join(plain[start : start + 76] for start in range(0, len(plain), 76)),
        "web": base64.urlsafe_b64encode(data).decode().rstrip("="),
        "data URI": f"data:image/png;base64,{plain}",
        "quoted data URI": "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
    }
    encoding = "url" if "URI" in form else "base64"
    rows = [{"image": texts[form], "kind": "a"}, {"image": "!", "kind": "b"}, {"image": texts[form], "kind": "a"}]
    rows = rows if encoding == "base64" else [rows[0], {"image": "data:;base64,!", "kind": "b"}, rows[2]]
    with serving(one_page(rows)) as site:
        api = source(site, image="image", label="kind", encoding=encoding)
        first, second, third = sorted(api, key=lambda record: (record.label, record.problem or ""))[:3]
        assert re.fullmatch("[0-9a-f]{32}", first.key) and first.location is None
        assert api.read(first) == data and third.label == "b"
        assert second.problem == "stands in row 1 already (row 3)"
        with pytest.raises(ImageError, match="is no base64"):
            api.read(third)
        small = source(site, image="image", encoding=encoding, max_bytes=255)
        with pytest.raises(ImageError, match=r"more than 255 bytes, the limit max_bytes="):
            small.read(first)
        assert len(site.requests) == 2


@given(st.binary(max_size=200))
def test_base64_gives_the_bytes_back(data: bytes) -> None:
    assert decoded(base64.b64encode(data).decode(), 200) == data
    assert decoded(base64.urlsafe_b64encode(data).decode().rstrip("="), 200) == data


@given(st.text(alphabet="./\\a\0é ", max_size=12))
def test_a_key_never_leaves_its_folder(text: str) -> None:
    key = plain_key(text)
    assert not key.startswith("/") and "\0" not in key
    assert not {"..", "."} & set(key.split("/"))


@pytest.mark.parametrize(
    ("body", "settings", "message"),
    [
        (b"<html>", {}, "page 1 is no JSON"),
        (b'"\xff"', {}, "page 1 is no JSON"),
        (b"[" * 100_000, {}, "page 1 is no JSON"),
        (b"[]", {}, "the list of rows is empty"),
        (b"{}", {}, "page 1: rows=(the whole answer) leads to no list; the answer has no names"),
        (b"7", {}, "page 1: rows=(the whole answer) leads to no list; the answer is neither a list nor an object"),
        (
            b'{"data": 1, "b": 2}',
            {"rows": "data.items"},
            "page 1: rows=data.items leads to nothing; the answer has 'data', 'b'",
        ),
        (b"[[]]", {"rows": "0.items"}, "page 1: rows=0.items leads to nothing; the answer is a list"),
        (b'[{"imaeg": 1}]', {}, "has no column 'image', which image= names; did you mean 'imaeg'? (columns: imaeg)"),
        (b'[{"image": "a"}]', {"key": "id"}, "has no column 'id', which key= names (columns: image)"),
        (b'[{"image": "a", "l": "b"}]', {"label": "l", "drop": "c"}, "no row has the label 'c' that drop= names"),
        (b'[{"image": "a", "s": "gone"}]', {"split": "s"}, "row 1: 's' is 'gone'; it must be train, val"),
        (
            b'{"rows": [{}], "next": {}}',
            {"rows": "rows", "next": "next"},
            "page 1: next=next leads to no text or number",
        ),
        (b'[{"image": "a"}, {"image": "b"}]', {"max_rows": 1}, "lists more than the limit max_rows=1"),
        (
            b'[{"image": "a"}, {"image": "b"}]',
            {"max_listing_bytes": 9},
            "lists more than the limit max_listing_bytes=9",
        ),
    ],
)
def test_faults_in_an_answer_are_reported(body: bytes, settings: dict[str, Any], message: str) -> None:
    with serving({"/items": lambda _: Reply(body)}) as site, pytest.raises(SourceError) as told:
        api = source(site, image="image", **settings)
        Manifest(api, api)
    assert str(told.value).startswith(f"{site.url}/items") and message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        (lambda _: page({"rows": ROWS, "next": "same"}), {"rows": "rows", "cursor": "after", "next": "next"}),
        (lambda _: page({"rows": ROWS, "next": "/items"}), {"rows": "rows", "next": "next"}),
        (lambda _: page(ROWS, Link='</items>; rel="next"'), {}),
        (lambda _: page(ROWS), {"page": "page"}),
    ],
)
def test_pages_in_a_circle_end(answer: Answer, settings: dict[str, Any]) -> None:
    with serving({"/items": answer}) as site:
        with pytest.raises(SourceError, match=r"/items: page 2 "):
            list(source(site, **settings))
        assert len(site.requests) == 2


def test_pages_without_end_end() -> None:
    def more(request: Request) -> Reply:
        number = int(request.query.get("after", "0"))
        return page({"rows": [{"image": {"url": f"{number}.jpg"}}], "next": number + 1})

    with serving({"/items": more}) as site:
        with pytest.raises(SourceError, match=r"lists more than the limit max_pages=5"):
            list(source(site, rows="rows", cursor="after", next="next", max_pages=5))
        assert len(site.requests) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://host/items"}, "give the http or https URL of a JSON API"),
        ({"url": "labels.csv"}, "give the http or https URL of a JSON API"),
        ({"url": "https://"}, "give the http or https URL of a JSON API"),
        ({"encoding": "blob"}, "encoding='blob' is unknown (known: url, base64)"),
        ({"page": "page", "next": "next"}, "page= to count the pages, or next= to follow them, not both"),
        ({"cursor": "after"}, "cursor=after needs next="),
        ({"separator": ""}, "separator= must be a character or more"),
        ({"private": "perhaps"}, "private='perhaps' must be true or false"),
        ({"retries": -1}, "retries=-1 must be a number, at least 0"),
        ({"deadline": "soon"}, "deadline='soon' must be a number, at least 0.001"),
        ({"hosts": "https://host"}, "hosts= must name each host as host or host:port"),
        ({"hosts": ["me@host"]}, "hosts= must name each host as host or host:port"),
        ({"secret_headers": {"a b": "NAME"}}, "secret_headers= is {header: variable}"),
        (
            {"url": "http://host/items", "token": "NAME"},
            "only over https; give the https URL, or private=true",
        ),
    ],
)
def test_invalid_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)):
        ApiSource(**{"url": "https://host/items", "image": "image", **settings})


def test_parameters_go_with_every_page_and_links_keep_their_own() -> None:
    with serving({"/items": by_link}) as site:
        list(source(site, parameters={"per_page": 2, "from": 0}))
        assert [request.query for request in site.requests] == [
            {"per_page": "2", "from": start} for start in ("0", "2", "4")
        ]


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    own_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "visionadapt.sources.web.client":
            raise ModuleNotFoundError("No module named 'tenacity'")
        return own_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SourceError, match=r"requests and tenacity; pip install 'visionadapt\[http\]'"):
        list(ApiSource("https://host/items", image="image"))
