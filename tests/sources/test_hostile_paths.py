"""Hostile paths in a table: none is read outside of the root, and none is waited for."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visionadapt.core.records import Record, Source
from visionadapt.errors import ImageError
from visionadapt.sources import SqlSource, TableSource

from .test_folder import make

SECRET = "secret.jpg"


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one image, and links, pipes and devices; next to it are files that must not be read."""
    make(tmp_path / "outside", SECRET)
    make(tmp_path / "root-not", SECRET)
    root = make(tmp_path / "root", "good.jpg", "deep/good.jpg")
    links = {
        "out.jpg": tmp_path / "outside" / SECRET,
        "up.jpg": f"../outside/{SECRET}",
        "outer": tmp_path / "outside",
        "zero.jpg": "/dev/zero",
        "broken.jpg": "nothing.jpg",
        "loop.jpg": "loop.jpg",
        "ring": "ring2",
        "ring2": "ring",
        "memory.jpg": "/proc/self/mem",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    (root / "chain.jpg").symlink_to("up.jpg")
    os.mkfifo(root / "pipe.jpg")
    os.mkfifo(tmp_path / "outside" / "pipe.jpg")
    (root / "pipe-link.jpg").symlink_to("pipe.jpg")
    return root


HOSTILE = (
    f"../outside/{SECRET}",
    f"deep/../../outside/{SECRET}",
    f"./././../outside/{SECRET}",
    f"../root-not/{SECRET}",
    f"{{root}}/../outside/{SECRET}",
    f"{{root}}-not/{SECRET}",
    f"..\\outside\\{SECRET}",
    "../outside/pipe.jpg",
    f"/..{{root}}/../outside/{SECRET}",
    "/etc/passwd",
    "//etc/passwd",
    "///etc/passwd",
    "/etc/../etc/passwd",
    " /etc/passwd",
    "\t/etc/passwd\n",
    "/dev/zero",
    "/dev/stdin",
    "/dev/fd/0",
    "/dev/tty",
    "/proc/self/environ",
    "/proc/self/root/etc/passwd",
    "/net/host/share/a.jpg",
    "~/.ssh/id_rsa",
    "~root/.bashrc",
    "$HOME/.bashrc",
    "C:\\Windows\\win.ini",
    "\\\\host\\share\\a.jpg",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "http://127.0.0.1/a.jpg",
    "https://user:word@host/a.jpg",
    "data:image/png;base64,AAAA",
    "good.jpg\0",
    "\0",
    "/etc/passwd\0.jpg",
    "a" * 5000,
    "a/" * 5000,
    "%2e%2e/outside/secret.jpg",
    "..",
    ".",
    "/",
    "",
    "   ",
    "\ud800.jpg",
    "deep",
    "good.jpg/x",
    "out.jpg",
    "up.jpg",
    "chain.jpg",
    f"outer/{SECRET}",
    f"outer/../outer/{SECRET}",
    "outer/pipe.jpg",
    "zero.jpg",
    "memory.jpg",
    "pipe.jpg",
    "pipe-link.jpg",
    "broken.jpg",
    "loop.jpg",
    "ring/a.jpg",
    "none.jpg",
)


def source_of(root: Path, paths: tuple[str, ...]) -> TableSource:
    lines = (json.dumps({"file": path.replace("{root}", str(root))}) for path in paths)
    (root.parent / "paths.jsonl").write_text("\n".join(lines))
    return TableSource(root.parent / "paths.jsonl", "file", root=root)


def test_each_is_a_row_with_a_problem_and_is_never_read(root: Path) -> None:
    records = list(source_of(root, HOSTILE))
    assert len(records) == len(HOSTILE) >= 40
    assert len({record.key for record in records}) == len(HOSTILE)
    for record in records:
        assert record.problem is not None, record
        assert not record.key.startswith("/") and ".." not in record.key.split("/") and "\0" not in record.key


def csv_source(root: Path, paths: list[str]) -> TableSource:
    with (root.parent / "paths.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *((path, "x") for path in paths)])
    return TableSource(root.parent / "paths.csv", "file", "label", root=root)


def parquet_source(root: Path, paths: list[str]) -> TableSource:
    pq.write_table(pa.table({"file": paths}), root.parent / "paths.parquet")
    return TableSource(root.parent / "paths.parquet", "file", root=root)


def sql_source(root: Path, paths: list[str]) -> SqlSource:
    with closing(sqlite3.connect(root.parent / "paths.db")) as database:
        database.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, file TEXT)")
        database.executemany("INSERT INTO images (file) VALUES (?)", [(path,) for path in paths])
        database.commit()
    return SqlSource(f"sqlite:///{root.parent}/paths.db", table="images", image="file", content="path", root=root)


@pytest.mark.parametrize("make_source", [csv_source, parquet_source, sql_source])
def test_other_tables_refuse_them_as_well(root: Path, make_source: Callable[[Path, list[str]], Source]) -> None:
    unwritable = "\ud800" if make_source is not csv_source else "\ud800\0"
    texts = [path.replace("{root}", str(root)) for path in HOSTILE if not set(path) & set(unwritable)]
    source = make_source(root, [*texts, "good.jpg"])
    *records, good = source
    assert len(records) == len(texts) >= 40
    assert (good.problem, source.read(good)) == (None, b"good.jpg")
    for record in records:
        assert record.problem is not None, record
        for attempt in (record, Record(record.key, location=record.location)):
            with pytest.raises(ImageError):
                source.read(attempt)
    for text in texts:
        with pytest.raises(ImageError):
            source.read(Record("row", location=text))


def test_reading_refuses_them_too(root: Path) -> None:
    source = source_of(root, HOSTILE)
    texts = [path.replace("{root}", str(root)) for path in HOSTILE]
    for record in [*source, *(Record("row", location=text) for text in texts), *(Record(text) for text in texts)]:
        with pytest.raises(ImageError):
            source.read(record)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (f"../outside/{SECRET}", "leads out of the folder"),
        ("/dev/zero", "leads out of the folder"),
        (f"outer/{SECRET}", "a symbolic link that leaves the folder"),
        ("zero.jpg", "a symbolic link that leaves the folder"),
        ("pipe.jpg", "is a named pipe, not a regular file"),
        ("pipe-link.jpg", "is a named pipe, not a regular file"),
        ("deep", "is a folder, not a regular file"),
        ("good.jpg\0", "the path holds a NUL character"),
        ("https://host/a.jpg", "is a URL, and only files in the table's folder are read"),
        ("~root/.bashrc", "no such file"),
        ("", "no file is named"),
        ("loop.jpg", "cannot be read: Too many levels of symbolic links"),
        ("a" * 5000, "cannot be read: File name too long"),
    ],
)
def test_the_reason_is_reported(root: Path, path: str, problem: str) -> None:
    (record,) = source_of(root, (path,))
    assert record.problem == f"{problem} (line 1)"


@pytest.mark.parametrize("path", ["good.jpg", "./good.jpg", "deep/../good.jpg", "{root}/good.jpg", "{link}/good.jpg"])
@pytest.mark.parametrize("by_link", [False, True])
def test_files_inside_are_read(root: Path, path: str, by_link: bool) -> None:
    (root.parent / "link").symlink_to("root")
    source = source_of(root, (path.replace("{link}", str(root.parent / ("link" if by_link else "root"))),))
    source = TableSource(source.path, "file", root=root.parent / "link") if by_link else source
    (record,) = source
    assert (record.key, record.problem) == ("good.jpg", None)
    assert source.read(record) == b"good.jpg"


def test_a_file_that_is_replaced_by_a_link_later_is_not_followed_out(root: Path) -> None:
    source = source_of(root, ("good.jpg", "deep/good.jpg"))
    first, second = source
    (root / "good.jpg").unlink()
    (root / "good.jpg").symlink_to(root.parent / "outside" / SECRET)
    (root / "deep" / "good.jpg").unlink()
    (root / "deep").rmdir()
    (root / "deep").symlink_to(root.parent / "outside")
    (root.parent / "outside" / "good.jpg").write_text("secret")
    for record in (first, second):
        with pytest.raises(ImageError, match="leads out of the folder"):
            source.read(record)


def test_an_image_that_is_too_large_is_reported(root: Path) -> None:
    source = source_of(root, ("good.jpg",))
    (record,) = TableSource(source.path, "file", root=root, max_bytes=7)
    assert record.problem == "has 8 bytes, more than the limit max_bytes=7 (line 1)"
