"""Single files in object storage: tables, weights, and what commands write; with faults of the store."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from visionadapt.core.records import Record
from visionadapt.errors import ImageError, RunError, SourceError
from visionadapt.sources import TableSource
from visionadapt.sources.objects.copies import exists, object_version, put
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.opening import open_source
from visionadapt.system.cache_folder import default_folder

from .object_storage import BUCKET, Store, busy, cut, error, sometimes
from .serving import Reply, Request

Make = Callable[..., Path]
TABLE = f"s3://{BUCKET}/set/labels.csv"
ROWS = "file,kind\nblood/0.png,blood\ngrass/0.png,grass\n"


def copies() -> list[Path]:
    return [path for path in (default_folder() / "objects").rglob("*") if path.is_file()]


def keys(source: TableSource) -> list[tuple[str, str | None, str | None]]:
    return [(record.key, record.label, record.problem) for record in source]


def test_a_table_in_a_bucket_has_the_rows_of_the_file(store: Store, tinted_folder: Make) -> None:
    folder = tinted_folder(count=1)
    (folder / "labels.csv").write_text(ROWS)
    store.put_folder(folder, "set")
    store.fault = sometimes(0.3, 5, busy, cut(store))
    remote, local = TableSource(TABLE, "file", "kind"), TableSource(folder / "labels.csv", "file", "kind")
    assert keys(remote) == keys(local)
    for record in remote:
        assert remote.read(record) == local.read(record)
    assert str(remote.resolved().path) == TABLE
    assert open_source(f"csv({TABLE}, image=file, label=kind)") == remote
    with pytest.raises(SourceError, match=r"is a table: give --data .csv\(s3://photos/set/labels.csv"):
        open_source(TABLE)


def test_a_version_is_fetched_once_and_pickled_sources_stay_with_it(store: Store) -> None:
    store.put("set/labels.csv", ROWS.encode())
    source = TableSource(TABLE, "file", "kind")
    before = keys(source)
    store.put("set/labels.csv", ROWS.replace("grass/0", "grass/1").encode())
    del store.site.requests[:]
    assert keys(pickle.loads(pickle.dumps(source))) == before
    assert not [request for request in store.site.requests if request.path.endswith(".csv")]
    assert keys(TableSource(TABLE, "file", "kind"))[1][0] == "grass/1.png"
    assert len(copies()) == 1
    copies()[0].unlink()
    with pytest.raises(SourceError, match="has changed since it was listed"):
        source.advice(Record("grass/0.png", problem="no such file"))


def test_a_parquet_table_with_bytes_is_read_from_its_copy(store: Store, tmp_path: Path) -> None:
    images = [os.urandom(3000) for _ in range(20)]
    parquet.write_table(
        pa.table({"image": pa.array(images, "binary"), "kind": ["a", "b"] * 10}), tmp_path / "t.parquet"
    )
    store.put("set/t.parquet", (tmp_path / "t.parquet").read_bytes())
    source = TableSource(f"s3://{BUCKET}/set/t.parquet", "image", "kind")
    assert [source.read(record) for record in source] == images


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"s3://{BUCKET}/set/none.csv", "none.csv: no such object"),
        ("s3://elsewhere/set/none.csv", "none.csv: no such object|there is no such bucket"),
        (f"s3://{BUCKET}/set/*.csv", "give one file"),
        (f"s3://{BUCKET}/set/", "name it with format="),
        ("s3://me:word@photos/labels.csv", "without user, password"),
    ],
)
def test_what_is_no_table_is_one_line(store: Store, url: str, told: str) -> None:
    with pytest.raises(SourceError, match=told) as raised:
        list(TableSource(url, "file"))
    assert "\n" not in str(raised.value)
    assert ":word" not in str(raised.value)


def test_faults_of_the_store_are_one_line_without_secrets(store: Store) -> None:
    store.put("set/labels.csv", ROWS.encode())
    for fault, told in (
        (error("ExpiredToken", 400), "credentials have expired"),
        (error("AccessDenied", 403), "access is denied"),
        (error("InvalidAccessKeyId", 403), "are not accepted"),
    ):
        store.fault = fault
        with pytest.raises(SourceError, match=told) as raised:
            object_version(TABLE).here()
        assert "AKIA" not in str(raised.value)
    assert not copies()


def test_a_body_that_always_ends_early_leaves_no_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bucket, "__init__", _impatient(Bucket.__init__))
    store.put("set/labels.csv", os.urandom(100_000))
    found = object_version(TABLE)

    def half(request: Request) -> Reply | None:
        return cut(store)(request) if request.method == "GET" else None

    store.fault = half
    with pytest.raises(SourceError):
        found.here()
    assert not copies()


def _impatient(init: Callable[..., None]) -> Callable[..., None]:
    return lambda self, url, retries=1, timeout=2.0: init(self, url, retries, timeout, 0.01, 0.02)


@pytest.mark.slow
def test_files_are_put_in_one_step_however_large(store: Store, tmp_path: Path) -> None:
    path, url = tmp_path / "large", f"s3://{BUCKET}/out/large"
    path.write_bytes(np.random.default_rng(0).bytes(40 << 20))
    store.fault = sometimes(0.2, 1, busy)
    put(path, url)
    assert object_version(url).here().read_bytes() == path.read_bytes()
    assert exists(url)
    assert not exists(f"{url}r")
    store.fault = error("ExpiredToken", 400)
    with pytest.raises(RunError, match="credentials have expired"):
        put(path, url)
    with pytest.raises((ImageError, SourceError)):
        exists(url)
