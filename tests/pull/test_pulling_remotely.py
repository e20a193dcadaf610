"""Pulling from a server and from a database: the bytes, the labels, only what is new, and no secret."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from visionadapt.core.records import Source
from visionadapt.pull.pull import pull
from visionadapt.sources import ApiSource, FolderSource, ManifestSource, SqlSource

from ..sources.serving import Reply, Request, page, serving

Make = Callable[..., Path]
CANARY = "canary-7d1e-93b5"


def told(source: Source) -> set[tuple[object, ...]]:
    """Return labels, group, split and bytes of each row."""
    return {(r.labels, r.group, r.split, source.read(r)) for r in source if r.problem is None}


def test_from_a_server(tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    folder, out = FolderSource(tinted_folder(count=12), group="/([0-9])"), tmp_path / "out"
    records, changed, missing = list(folder), {"version": "1"}, {"/blood/3.png"}

    def answer(request: Request) -> Reply:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("authorization") != f"Bearer {CANARY}":
            return Reply(status=401)
        if request.path != "/items":
            found = request.path not in missing
            return Reply((Path(folder.root) / request.path[1:]).read_bytes() if found else b"", 200 if found else 404)
        start = int(request.query.get("from", "0"))
        query = {"grass/2.png": f"?v={changed['version']}"}
        echo = {"echo": f"Bearer {CANARY}", "link": f"https://me:{CANARY}@host/"}
        rows = [
            {"image": f"/{r.key}{query.get(r.key, '')}", "label": r.label, "who": r.group, **echo}
            for r in records[start : start + 10]
        ]
        more = {"Link": f'</items?from={start + 10}>; rel="next"'} if start + 10 < len(records) else {}
        return page(rows, **more)

    with serving(answer) as site:

        def shop() -> ApiSource:
            settings = {"label": "label", "group": "who", "token": "SHOP_TOKEN", "private": True, "retries": 0}
            return ApiSource(f"{site.url}/items", "image", **settings)

        first = pull(shop(), out, workers=4)
        assert (first.rows, first.fetched, first.failed) == (24, 24, 1)
        assert first.reasons[0][0] == "blood/3.png" and "404" in first.reasons[0][1]
        missing.clear()
        site.requests.clear()
        assert pull(shop(), out).failed == 0
        assert sorted(site.paths) == ["/blood/3.png", *["/items"] * 3]
        assert told(ManifestSource(out)) == told(folder)
        assert {r.key: r.group for r in ManifestSource(out)} == {r.key: r.group for r in folder}
        changed["version"] = "2"
        site.requests.clear()
        assert not pull(shop(), out).changed
        assert sorted(site.paths) == ["/grass/2.png", *["/items"] * 3]
    assert told(ManifestSource(out)) == told(folder), "no server is needed any more"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 24 and not [path for path in written if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("held", [True, False])
def test_from_a_database(tinted_folder: Make, tmp_path: Path, held: bool) -> None:
    folder, out = FolderSource(tinted_folder(count=6)), tmp_path / "out"
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, image, label TEXT)")
        rows = [(folder.read(record) if held else record.key, record.label) for record in folder]
        database.executemany("INSERT INTO images (image, label) VALUES (?, ?)", rows)
        database.commit()

        def shop() -> SqlSource:
            return SqlSource(f"sqlite:///{path}", table="images", image="image", label="label", root=folder.root)

        first = pull(shop(), out, workers=3)
        assert (first.rows, first.fetched, first.failed) == (12, 12, 0)
        assert told(ManifestSource(out)) == told(folder)
        again = pull(shop(), out)
        assert (again.changed, again.fetched) == (False, 12 if held else 0), "a database tells no versions of its bytes"
        database.execute("UPDATE images SET label = 'grass' WHERE id = 1")
        database.execute("DELETE FROM images WHERE id = 2")
        database.commit()
        third = pull(shop(), out)
        assert (third.rows, third.removed, third.changed) == (11, 1, True)
    assert sorted(str(record.label) for record in ManifestSource(out)) == ["blood"] * 4 + ["grass"] * 7
