"""Rows in memory: DataFrames, Arrow tables and lists are the same rows as the folder that they list."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import visionadapt as va
from visionadapt.core.records import Manifest, Record
from visionadapt.errors import ImageError, SourceError, SpecError, UsageError, VisionAdaptError
from visionadapt.sources import FolderSource, MemorySource, TableSource
from visionadapt.sources.opening import manifest_of

from .test_folder import make

FILES = [f"{name}/{number}.jpg" for name in ("ant", "bée") for number in range(4)]
LABELS = [path.split("/")[0] for path in FILES]


def named(value: object) -> str:
    """Return a parameter's id that is the same in every process: no address."""
    return str(getattr(value, "__name__", value if isinstance(value, str | int | float) else type(value).__name__))


class Column:
    """What is used of a pandas Series."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return list(self.values)

    def isna(self) -> Column:
        return Column([value is None or value != value for value in self.values])


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = list(columns)
        self.iloc = self
        self._values = list(columns.values())

    def __getitem__(self, place: tuple[slice, int]) -> Column:
        return Column(self._values[place[1]])


def pandas_frame(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


FRAMES: list[Callable[[dict[str, list[Any]]], Any]] = [Frame, pandas_frame, pa.table]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make(tmp_path, *FILES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(manifest: Manifest) -> list[Record]:
    return list(manifest)


@pytest.mark.parametrize("form", ["list", "absolute", "paths", "other order", *FRAMES], ids=named)
def test_the_same_rows_make_the_same_manifest_and_splits(folder: Path, form: Any) -> None:
    pairs: list[tuple[Any, Any]] = list(zip(FILES, LABELS, strict=True))
    given: Any = {
        "list": pairs,
        "absolute": [(str(folder / path), label) for path, label in pairs],
        "paths": [(Path(path), [label]) for path, label in pairs],
        "other order": [(f"./{path}", label) for path, label in reversed(pairs)],
    }.get(form) or form({"image": FILES, "label": LABELS})
    source = FolderSource(folder)
    found, expected = manifest_of(given), manifest_of(source)
    assert found.classes == expected.classes == ("ant", "bée")
    assert sorted(rows_of(found), key=lambda record: record.key) == rows_of(expected)
    assert {found.key(row): found.read(row) for row in range(8)} == {
        record.key: source.read(record) for record in source
    }
    for mine, theirs in zip(va.split(given, seed=3), va.split(str(folder), seed=3), strict=True):
        assert sorted(rows_of(mine), key=lambda record: record.key) == rows_of(theirs)
        assert (mine.classes, mine.class_counts()) == (theirs.classes, theirs.class_counts())


def test_a_folder_a_path_and_a_settings_text_are_sources(folder: Path) -> None:
    (folder / "rows.csv").write_text(
        "file,label\n" + "".join(f"{path},{path[:3]}\n" for path in FILES), encoding="utf-8"
    )
    for given in (str(folder), folder, FolderSource(folder), manifest_of(folder)):
        assert rows_of(manifest_of(given)) == rows_of(manifest_of(FolderSource(folder)))
    table = TableSource("rows.csv", "file", "label")
    for given in (table, "csv(rows.csv, image=file, label=label)"):
        assert rows_of(manifest_of(given)) == rows_of(manifest_of(table))
    with pytest.raises(SourceError, match=r"rows\.csv is a table.*image="):
        manifest_of(folder / "rows.csv")
    with pytest.raises(SourceError, match="missing"):
        manifest_of("missing")
    with pytest.raises(SpecError):
        manifest_of("csv(")


@pytest.mark.parametrize("given", [5, None, {"a": 1}, iter([]), 1.5, object()], ids=named)
def test_anything_else_is_one_line_that_says_what_is_accepted(given: Any) -> None:
    with pytest.raises(UsageError, match=r"DataFrame.*\(path, label\), not") as raised:
        manifest_of(given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", ["ab", ("a.jpg",), (5, "ant"), ("a.jpg", "ant", 1), ("a.jpg", 5)], ids=named)
def test_a_row_of_a_list_that_is_no_pair_is_named(row: Any) -> None:
    with pytest.raises(UsageError, match="row 2"):
        manifest_of([("x.jpg", "ant"), row])


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_are_found_by_their_names(folder: Path, frame: Any) -> None:
    columns = {"path": FILES[:4], "label": ["x", None, "y", "y"], "group": ["a", "a", None, "b"]}
    manifest = manifest_of(frame({**columns, "split": ["train", "val", None, "Test"], "age": [1, 2, 3, None]}))
    assert rows_of(manifest) == [
        Record(FILES[0], ("x",), "a", "train", columns={"age": manifest[0].columns["age"]}),
        Record(FILES[1], (), "a", "val", columns={"age": manifest[1].columns["age"]}),
        Record(FILES[2], ("y",), None, None, columns={"age": manifest[2].columns["age"]}),
        Record(FILES[3], ("y",), "b", "test"),
    ]
    with pytest.raises(UsageError, match=r"image, file or path.*columns: picture, label.*MemorySource"):
        manifest_of(frame({"picture": FILES, "label": LABELS}))
    source = MemorySource(frame({"picture": FILES, "kind": LABELS}), "picture", "kind", labels={"ant": "emmet"})
    assert source.classes == ("bée", "emmet")
    with pytest.raises(SourceError, match="'species', which label= names"):
        _ = MemorySource(frame({"picture": FILES}), "picture", "species").classes


@pytest.mark.parametrize("frame", FRAMES)
def test_several_labels_of_a_row(folder: Path, frame: Any) -> None:
    labels: list[Any] = [["ant", "bee"], ["bee"], [], ["ant"]]
    expected = [("ant", "bee"), ("bee",), (), ("ant",)]
    for given in (list(zip(FILES, labels, strict=False)), frame({"file": FILES[:4], "label": labels})):
        manifest = manifest_of(given)
        assert [record.labels for record in manifest] == expected
        assert manifest.has_several_labels
    text = MemorySource(frame({"file": FILES[:2], "label": ["ant|bee", "ant"]}), "file", "label", separator="|")
    assert [record.labels for record in text] == [("ant", "bee"), ("ant",)]


def test_what_cannot_be_read_is_a_rejected_row(folder: Path) -> None:
    given = [("gone.jpg", "x"), ("ant", "x"), ("", "x"), ("a\0b", "x"), ("https://a.b/c.jpg", "x"), (FILES[0], "x")]
    manifest = manifest_of([*given, (f"./{FILES[0]}", "x"), (FILES[1], "x"), (FILES[1], "y")])
    problems = [record.problem for record in manifest]
    assert [problem is None for problem in problems] == [False] * 5 + [True] + [False] * 3
    assert all("row" in str(problem) for problem in problems if problem is not None)
    keys = [record.key for record in manifest]
    assert len(set(keys)) == len(keys)
    assert not any(key.startswith("/") or ".." in key.split("/") for key in keys)


def test_absolute_paths_may_be_anywhere_unless_there_is_a_root(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make(elsewhere := tmp_path_factory.mktemp("elsewhere"), "ant/9.jpg")
    path = elsewhere / "ant" / "9.jpg"
    given = [(FILES[0], "ant"), (path, "ant"), (f"../{elsewhere.name}/ant/9.jpg", "bee")]
    manifest = manifest_of(given[:2])
    assert [record.key for record in manifest] == [FILES[0], str(path).lstrip("/")]
    assert manifest.read(1) == path.read_bytes()
    confined = MemorySource(given, label="label", root=folder)
    assert [record.problem is None for record in confined] == [True, False, False]
    for location in (str(path), f"../{elsewhere.name}/ant/9.jpg"):
        with pytest.raises(ImageError):
            confined.read(Record("x", location=location))


def test_a_copy_in_another_folder_reads_the_same_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = {"image": list(FILES), "label": list(LABELS)}
    source = MemorySource(Frame(frame), label="label")
    before = {record.key: source.read(record) for record in source}
    frame["label"][:] = ["other"] * 8
    monkeypatch.chdir("/")
    for copy in (source, pickle.loads(pickle.dumps(source)), manifest_of(source).source):
        assert {record.key: copy.read(record) for record in copy} == before
        assert copy.classes == ("ant", "bée") and (len(copy), copy[0].key) == (8, FILES[0])
    assert "8 rows" in repr(source) and source.version_of(source[0]) is not None


@pytest.mark.parametrize("form", [list, pa.Table.from_pylist, MemorySource], ids=named)
def test_a_run_folder_cannot_name_rows_in_memory(folder: Path, form: Any) -> None:
    given = form([] if form is not MemorySource else [(FILES[0], "ant")])
    with pytest.raises(VisionAdaptError, match="text") as raised:
        va.train(given, out=folder / "run")
    assert "\n" not in str(raised.value) and not (folder / "run").exists()
