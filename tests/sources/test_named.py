"""Images given by name: files, folders and URLs in one list, and none requested that nobody allowed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError
from visionadapt.sources.named import NamedSource

from .serving import Reply, Request, serving


def answer(request: Request) -> Reply:
    if request.path == "/away.png":
        return Reply(status=302, headers={"Location": "http://localhost:9/secret.png"})
    return Reply(request.path.encode()) if request.path.endswith(".png") else Reply(status=404)


def test_names_keep_their_order_and_queries_stay_out_of_keys(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "photos/b.png"):
        (tmp_path / name).write_bytes(name.encode())
    with serving(answer) as site:
        url, file, folder = f"{site.url}/cat.png?token=secret", str(tmp_path / "a.png"), str(tmp_path / "photos")
        host = f"127.0.0.1:{site.port}"
        source = NamedSource([url, file, url, folder, f"{site.url}/gone"], hosts=[host], private=True)
        records = list(Manifest(source, source))
        found = [source.read(record) for record in records[:3]]
        assert found == [b"/cat.png", b"a.png", b"photos/b.png"] and len(records) == 4
        assert not any("secret" in record.key for record in records) and "secret" not in str(source)
        assert pickle.loads(pickle.dumps(source)).read(records[0]) == b"/cat.png"
        with pytest.raises(ImageError, match="404"):
            source.read(records[3])
        assert source.version_of(records[0]) != source.version_of(records[3])


def test_neither_other_hosts_nor_private_addresses_are_contacted() -> None:
    with serving(answer) as site:
        host, url = f"127.0.0.1:{site.port}", f"{site.url}/cat.png"
        for source in (NamedSource([url], private=True), NamedSource([url], hosts=[host])):
            with pytest.raises(ImageError):
                source.read(source[0])
        assert site.paths == []
        source = NamedSource([f"{site.url}/away.png"], hosts=[host], private=True)
        with pytest.raises(ImageError, match="redirects to"):
            source.read(source[0])


def test_a_host_that_does_not_answer_costs_its_own_rows_only(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    with serving(answer) as site:
        gone = site.port
    source = NamedSource(
        [f"http://127.0.0.1:{gone}/a.png", str(tmp_path / "a.png")], hosts=[f"127.0.0.1:{gone}"], private=True
    )
    with pytest.raises(ImageError):
        source.read(source[0])
    assert source.read(source[1]) == b"a"
