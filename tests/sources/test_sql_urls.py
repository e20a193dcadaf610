"""`SqlSource` on URLs: only allowed hosts are contacted, and no record holds a URL."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from visionadapt.core import spec
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import SqlSource
from visionadapt.sources.opening import manifest_of

from .serving import Reply, Request, Site, serving
from .shops import Shop, sqlite_shop


@pytest.fixture
def site() -> Iterator[Site]:
    """A server whose images are their own paths; some are missing."""

    def answer(request: Request) -> Reply:
        return Reply(status=404) if "none" in request.path else Reply(f"{request.path}?{dict(request.query)}".encode())

    with serving(answer) as site:
        yield site


@pytest.fixture
def shop(tmp_path: Path, site: Site) -> Shop:
    """Rows with URLs of that server and of others."""
    shop = sqlite_shop(tmp_path)
    urls = [
        f"{site.url}/1.jpg?token=c4n4ry",
        f"{site.url}/none.jpg",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        None,
        f"http://me:c4n4ry@127.0.0.1:{site.port}/6.jpg",
    ]
    rows = [{"id": number, "link": url, "label": "x"} for number, url in enumerate(urls, 1)]
    shop.fill("images", rows, key=["id"], id=sqlalchemy.Integer)
    return shop


def test_images_by_their_urls(shop: Shop, site: Site) -> None:
    here = f"127.0.0.1:{site.port}"
    text = f"sql({shop.url}, table=images, image=link, content=url, label=label, hosts=[{here}], private=true)"
    source = spec.parse(text, "source")
    assert isinstance(source, SqlSource) and spec.parse(spec.format(source, "source"), "source") == source
    records = list(source)
    assert [(record.key, record.problem) for record in records] == [
        ("1", None),
        ("2", None),
        ("3", "is not requested: its host 169.254.169.254 is not allowed; hosts=169.254.169.254 allows it (id 3)"),
        ("4", "is not requested: it is no http or https URL (id 4)"),
        ("5", "names no image (id 5)"),
        ("6", "is not requested: it holds a user or a password (id 6)"),
    ]
    assert site.paths == []
    assert "c4n4ry" not in json.dumps([str(record) for record in records])
    again = pickle.loads(pickle.dumps(source))
    first, missing, *_ = manifest_of(again)
    assert again.read(first) == b"/1.jpg?{'token': 'c4n4ry'}"
    with pytest.raises(ImageError, match=r"^2: answers 404"):
        again.read(missing)
    assert site.paths == ["/1.jpg", "/none.jpg"]


def test_hosts_that_are_not_allowed_are_not_contacted(shop: Shop, site: Site) -> None:
    here = f"127.0.0.1:{site.port}"
    guarded = shop.source(table="images", image="link", content="url", hosts=here)
    with pytest.raises(ImageError, match=r"has the address 127\.0\.0\.1, which is not public; private=true allows it"):
        guarded.read(next(iter(guarded)))
    assert not any(record.problem is None for record in shop.source(table="images", image="link", content="url"))
    plain = shop.source(table="images", image="link")
    assert {str(record.problem).split(" (")[0] for record in plain} == {
        "is a URL, and only files in the table's folder are read",
        "no file is named",
    }
    assert site.requests == [] and site.connections == 0
    with pytest.raises(SourceError, match="hosts= "):
        shop.source(table="images", image="link", content="url", hosts="http://example.org/")
    with pytest.raises(SourceError, match="private='perhaps' must be true or false"):
        shop.source(table="images", image="link", content="url", private="perhaps")
