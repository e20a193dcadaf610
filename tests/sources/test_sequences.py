"""Every source has a length, rows by number, and a short `repr`, without any other change."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import visionadapt as va
from visionadapt.core import spec
from visionadapt.errors import SourceError
from visionadapt.pull.pull import pull
from visionadapt.sources import ApiSource, FileSource, FolderSource, ManifestSource, TableSource
from visionadapt.sources.base import BaseSource

from .serving import page, serving
from .shops import NUMBERS, sqlite_shop
from .test_folder import make

FILES = ("train/hat/1.jpg", "train/hat/2.jpg", "train/shoe/1.jpg", "val/shoe/é.jpg", "test/gown/3.jpg")
ROWS = [
    {"id": number, "file": file, "label": file.split("/")[1], "split": file.split("/")[0]}
    for number, file in enumerate([*FILES, "train/hat/none.jpg", FILES[0]], 1)
]
COLUMNS: dict[str, Any] = {"image": "file", "label": "label", "split": "split"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "photos", *FILES)


@pytest.fixture(params=["folder", "files", "table", "sql", "api", "manifest"])
def source(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Iterator[BaseSource]:
    """One source of each kind on nearly the same rows, one of whose classes only test rows have."""
    with serving({"/items": lambda _: page(ROWS)}) as site:
        yield {
            "folder": lambda: FolderSource(folder),
            "files": lambda: FileSource(folder),
            "table": lambda: TableSource(table(tmp_path), root=folder, **COLUMNS),
            "sql": lambda: database(tmp_path, folder),
            "api": lambda: ApiSource(f"{site.url}/items", private=True, key="id", **COLUMNS),
            "manifest": lambda: frozen(folder, tmp_path / "frozen"),
        }[request.param]()


def table(path: Path) -> Path:
    (path / "labels.csv").write_text(
        "file,label,split\n" + "".join("{file},{label},{split}\n".format(**r) for r in ROWS)
    )
    return path / "labels.csv"


def database(path: Path, root: Path) -> BaseSource:
    shop = sqlite_shop(path)
    shop.fill("images", ROWS, key=["id"], **NUMBERS)
    return shop.source(table="images", root=root, **COLUMNS)


def frozen(folder: Path, out: Path) -> BaseSource:
    pull(FolderSource(folder), out)
    return ManifestSource(out)


def test_rows_by_number_are_those_of_the_iteration(source: BaseSource) -> None:
    records = [record for record in source]  # noqa: C416 - list() asks for the length as well
    count = len(records)
    assert count >= len(FILES) and len(source) == count
    assert [source[number] for number in range(count)] == records
    assert [source[number] for number in range(-count, 0)] == records
    for number in (count, -count - 1):
        with pytest.raises(IndexError, match=rf"{count} rows, and none with the number {number}"):
            _ = source[number]
    assert list(source) == records and list(reversed(source)) == records[::-1]  # type: ignore[call-overload]


def test_what_was_read_is_no_part_of_the_settings(source: BaseSource) -> None:
    text, again = spec.format(source, "source"), dataclasses.replace(source)  # type: ignore[type-var]
    before, shown = pickle.dumps(source), repr(source)
    _ = len(source), source[0]
    after = pickle.dumps(source)
    assert source == again and spec.format(source, "source") == text and repr(source) == shown
    assert spec.parse(text, "source") == source
    copy = pickle.loads(after)
    assert copy == source and list(copy) == list(source) and copy[-1] == source[-1]
    for kept in ("_packed", "_count"):
        assert kept in source.__dict__ or kept == "_count"
        assert kept.encode() not in before + after


def test_a_source_is_true_and_says_so_without_reading(tmp_path: Path) -> None:
    table = TableSource(make(tmp_path, "empty.csv") / "empty.csv", "file")
    assert table and FileSource([]) and not table.__dict__.keys() & {"_facts", "_packed", "_count"}
    with pytest.raises(SourceError, match="has no column 'file'"):
        len(table)


def test_iteration_reads_the_folder_again(folder: Path) -> None:
    source = FolderSource(folder)
    assert len(source) == len(FILES)
    make(folder, "train/hat/9.jpg")
    assert len(list(source)) == len(FILES) + 1


@pytest.mark.parametrize(
    ("make_source", "shown"),
    [
        (lambda root: FolderSource(root), "FolderSource(root='photos')"),
        (lambda root: FileSource([root], strict=False), "FileSource(paths=('photos',), strict=False)"),
        (
            lambda root: TableSource(root / "t.csv", "file", labels={"a": "b"}),
            "TableSource(path='photos/t.csv', image='file', labels={'a': 'b'}, format='csv')",
        ),
        (lambda _: ApiSource("https://h/items", "url"), "ApiSource(url='https://h/items', image='url')"),
    ],
)
def test_only_what_is_not_the_default_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_source: Callable[[Path], BaseSource], shown: str
) -> None:
    make(tmp_path / "photos", "t.csv")
    monkeypatch.chdir(tmp_path)
    assert repr(make_source(Path("photos"))) == shown
    assert len(repr(FileSource([f"{number}.jpg" for number in range(1000)], strict=False))) < 200


def test_every_argument_is_described(source: BaseSource) -> None:
    text = str(type(source).__doc__)
    for item in dataclasses.fields(source):  # type: ignore[arg-type]
        assert item.name in text
    assert "{columns}" not in text


def test_a_source_can_be_split_after_its_length_was_read(folder: Path) -> None:
    source = FolderSource(folder)
    assert len(source) == 5
    train, val = va.split(source)
    assert (len(train), len(val), train.classes) == (3, 1, ("hat", "shoe"))
