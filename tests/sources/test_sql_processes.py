"""`SqlSource` in several processes, each with its own connections, and in little memory."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from visionadapt.core.records import Record
from visionadapt.sources import SqlSource

from .shops import NUMBERS, Shop, numbered, sqlite_shop

pytestmark = pytest.mark.slow


def backend_and_bytes(source: SqlSource, record: Record) -> tuple[str, bytes]:
    with source._database.connected() as connection:
        backend = "SELECT pg_backend_pid()" if connection.dialect.name == "postgresql" else "SELECT 0"
        return str(connection.exec_driver_sql(backend).scalar()), source.read(record)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_process_has_its_own_connections(shop: Shop, method: str) -> None:
    shop.fill("images", numbered(3, data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    source = shop.source(table="images", image="data")
    records = list(source)
    before = backend_and_bytes(source, records[0])
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        found = list(pool.map(backend_and_bytes, [source] * len(records), records))
    assert [data for _, data in found] == [b"\0", b"\1", b"\2"]
    if shop.kind == "postgresql":
        assert before[0] not in {backend for backend, _ in found}
    assert backend_and_bytes(source, records[0])[1] == before[1]


def test_a_fork_leaves_its_parent_s_connection_alone(shop: Shop) -> None:
    shop.fill("images", numbered(2, data=lambda n: bytes([n])), key=["id"], **NUMBERS)
    source, idle = (shop.source(table="images", image="data") for _ in range(2))
    records = iter(source)
    first = next(records)
    assert idle.read(first) == b"\0"
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = len(list(source)) == 2 and source.read(first) == b"\0"
            del idle
            gc.collect()
        finally:  # else it would go on with the tests of its parent
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source.read(first) == b"\0" and next(records).key == "1" and idle.read(first) == b"\0"


def test_images_are_not_fetched_to_list_them(tmp_path: Path) -> None:
    shop = sqlite_shop(tmp_path)
    shop.fill("images", numbered(30, data=lambda n: bytes(1 << 20)), key=["id"], **NUMBERS)
    source = shop.source(table="images", image="data")
    assert source._described.content == "blob"
    tracemalloc.start()
    records = list(source)
    _, listed = tracemalloc.get_traced_memory()
    assert len(source.read(records[3])) == 1 << 20
    _, read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed < 1 << 20 <= read < 4 << 20


MEASURE = """
import resource, sys
from visionadapt.sources import SqlSource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
long = "repeat('x', 6000)" if "postgresql" in sys.argv[1] else "hex(zeroblob(3000))"
numbers = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {})"
query = numbers + f" SELECT n || {long} AS file, n % 7 AS label FROM n"
settings = dict(image="file", label="label", root="/", password=sys.argv[2] if len(sys.argv) > 2 else None)
few = SqlSource(sys.argv[1], query=query.format(1999), **settings)
assert len(few.classes) == 7 and sum(1 for _ in few) == 2000
before = peak()
many = SqlSource(sys.argv[1], query=query.format(9_999), **settings)
assert sum(1 for _ in many) == 10_000
print((peak() - before) // 1024)
"""


def test_rows_are_streamed(shop: Shop) -> None:
    shop.run("CREATE TABLE numbers (number INT)")
    command = [sys.executable, "-c", MEASURE, shop.url, *map(str, shop.settings.values())]
    grown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert grown.returncode == 0, grown.stderr
    assert int(grown.stdout) < 20, "MiB, where the rows have 60"
