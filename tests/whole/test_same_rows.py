"""The same rows from wherever they come: one content hash, and with one seed the same trained weights."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy
from pyarrow import parquet

import visionadapt as va
from visionadapt.adapters import Bottleneck
from visionadapt.core.records import Source
from visionadapt.sources import MemorySource
from visionadapt.sources.opening import open_source

from ..conftest import SMALL_BACKBONE, tinted
from ..postgresql import Server
from ..sources.serving import Reply, Request, page, serving
from ..sources.shops import PASSWORD, postgresql_shop, sqlite_shop

pytestmark = pytest.mark.slow

Row = dict[str, Any]
CLASSES = ("blood", "grass", "sky", "straw")
COUNT = 60
KINDS = ("csv", "parquet", "api", "sqlite", "sqlite-blob", "postgresql", "postgresql-blob")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A folder of pictures whose names hold all that is known of them, and the same as rows in the folder's order."""
    root = tmp_path_factory.mktemp("pictures")
    rows = []
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(COUNT // len(CLASSES)):
            part, sender = "val" if number % 5 == 4 else "test" if number % 5 == 3 else "train", f"s{number % 5}"
            file = f"{name}/{number}-{sender}-{part}.png"
            tinted((60 + 7 * number % 40, 90 - 5 * number % 40), label, 1000 * label + number).save(root / file)
            rows.append({"id": len(rows), "file": file, "label": name.upper(), "who": sender, "part": part})
    return root, rows


@pytest.fixture
def sources(
    pictures: tuple[Path, list[Row]], tmp_path: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The rows in every kind of source, as settings texts."""
    root, rows = pictures
    monkeypatch.setenv(PASSWORD, postgresql.password)
    labels = ", ".join(f"{name.upper()}: {name}" for name in CLASSES)
    columns = f"label=label, labels={{{labels}}}, group=who, split=part"
    files = f"image=file, {columns}, root={root}"
    write_tables(tmp_path, rows)
    found = {"folder": f'folder({root}, group="-(s[0-9])-", split="-([a-z]+).png")'}
    found |= {kind: f"{kind}({tmp_path}/labels.{kind}, {files})" for kind in ("csv", "parquet")}
    held = [{**row, "data": (root / row["file"]).read_bytes()} for row in rows]
    types: dict[str, Any] = {"id": sqlalchemy.Integer, "data": sqlalchemy.LargeBinary}
    for shop in (sqlite_shop(tmp_path), postgresql_shop(tmp_path, postgresql)):
        shop.fill("pictures", held, key=["id"], **types)
        found[shop.kind] = f"sql({shop.text}, table=pictures, {files})"
        found[f"{shop.kind}-blob"] = f"sql({shop.text}, table=pictures, image=data, key=file, {columns})"
    with ExitStack() as stack:
        site = stack.enter_context(serving(Unsteady(root, rows)))
        found["api"] = (
            f"api({site.url}/pictures, image=file, rows=items, page=page, wait=0.01, private=true, {columns})"
        )
        yield found


def write_tables(folder: Path, rows: list[Row]) -> None:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")


class Unsteady:
    """Answers like a web service: pages of rows, of which one fails at first with 500, and one picture with 429."""

    def __init__(self, root: Path, rows: list[Row]) -> None:
        self.root, self.rows = root, rows
        self.failures = {"/pictures?2": Reply(status=500), "/sky/0-s0-train.png": Reply(status=429)}

    def __call__(self, request: Request) -> Reply:
        number = request.query.get("page")
        failure = self.failures.pop(request.path + (f"?{number}" if number else ""), None)
        if failure is not None:
            return failure
        if number is None:
            return Reply((self.root / request.path.lstrip("/")).read_bytes())
        start = 25 * (int(number) - 1)
        return page({"items": [{**row, "file": f"/{row['file']}"} for row in self.rows[start : start + 25]]})


def content_hash(source: Source) -> str:
    """A hash of what a source says, in its order: key, bytes, label, group and split of every row."""
    whole = hashlib.sha256(json.dumps(source.classes).encode())
    for record in source:
        assert record.problem is None
        data = hashlib.sha256(source.read(record)).hexdigest()
        whole.update(json.dumps([record.key, data, record.labels, record.group, record.split]).encode())
    return whole.hexdigest()


def test_the_same_rows_have_one_hash_and_give_the_same_weights(
    sources: dict[str, str], pictures: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    root, rows = pictures
    wanted = hashlib.sha256(json.dumps(CLASSES).encode())
    for row in rows:
        data = hashlib.sha256((root / row["file"]).read_bytes()).hexdigest()
        wanted.update(json.dumps([row["file"], data, [row["label"].lower()], row["who"], row["part"]]).encode())
    opened: dict[str, Source] = {kind: open_source(text) for kind, text in sources.items()}
    names = {name.upper(): name for name in CLASSES}
    columns: dict[str, Any] = {"image": "file", "label": "label", "group": "who", "split": "part"}
    opened["memory"] = MemorySource(pa.Table.from_pylist(rows), **columns, labels=names, root=root)
    assert {kind: content_hash(source) for kind, source in opened.items()} == dict.fromkeys(
        ("folder", *KINDS, "memory"), wanted.hexdigest()
    )
    weights = {kind: trained(source, tmp_path / kind) for kind, source in opened.items()}
    assert len(weights) == 2 + len(KINDS) and len(set(weights.values())) == 1, weights


def trained(source: Source, cache: Path) -> str:
    """A hash of what training on a source comes to, with a cache of its own."""
    train, val = va.split(source)
    assert (len(train), len(val)) == (36, 12)
    model = va.classifier(SMALL_BACKBONE, source.classes, Bottleneck(rank=2), weights="none", image_size=64, seed=0)
    before = digest(model)
    list(va.fit(model, train, val, va.preprocessing_for(model), epochs=1, batch_size=8, workers=0, cache=cache))
    assert digest(model) != before
    return digest(model)


def digest(model: va.Classifier) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()
