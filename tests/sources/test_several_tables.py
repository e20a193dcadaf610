"""Tables in several files: Parquet of the Hugging Face Hub, and what its `datasets` library saves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from visionadapt.core import spec
from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FolderSource, TableSource
from visionadapt.sources.opening import open_source

from .test_bucket import photos

NAMES = tuple(
    f"{part}/{kind}/{number}.png" for part in ("train", "test") for kind in ("cat", "dog") for number in range(5)
)


def datasets_of(folder: Path) -> Any:
    datasets: Any = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features = datasets.Features({**kinds, "file": datasets.Value("string")})
    parts = {}
    for part in ("train", "test"):
        rows = [row for row in FolderSource(folder) if row.split == part]
        images = [{"bytes": (folder / row.key).read_bytes(), "path": row.key} for row in rows]
        labels = [["cat", "dog"].index(str(row.label)) for row in rows]
        columns = {"image": images, "label": labels, "file": [row.key for row in rows]}
        parts[part] = datasets.Dataset.from_dict(columns, features=features)
    return datasets.DatasetDict(parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "set", *NAMES)


def check_equal(source: TableSource, folder: Path) -> None:
    local = {row.key: row for row in FolderSource(folder)}
    rows = list(source)
    assert {row.key: (row.labels, row.split, row.problem) for row in rows} == {
        key: (row.labels, row.split, None) for key, row in local.items()
    }
    assert source.classes == ("cat", "dog")
    for manifest in (Manifest(source, source), pickle.loads(pickle.dumps(Manifest(source, source)))):
        for row in (*range(len(manifest)), 13, 2, 19, 0):
            assert manifest.read(row) == (folder / manifest.key(row)).read_bytes()


def test_a_folder_that_the_library_saved_is_a_table(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    datasets_of(folder).save_to_disk(saved, num_shards={"train": 3, "test": 1})
    (saved / "train" / "cache-123.arrow").write_bytes(b"not a part of the data")
    source = TableSource(saved, "image", "label", split="split", key="file", format="arrow")
    check_equal(source, folder)
    assert spec.parse(spec.format(source.resolved(), "source"), "source") == source.resolved()
    with pytest.raises(SourceError, match=r"holds a table: give --data .arrow\(.*image=image, label=label"):
        open_source(str(saved))
    one = TableSource(saved / "train", "image", "label", format="arrow")
    assert next(iter(one)).key == "data-00000-of-00003.arrow, row 1/0.png"


@pytest.mark.slow
def test_parquet_of_the_hub_is_a_table(folder: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    for part, rows in datasets_of(folder).items():
        for number in range(2):
            rows.shard(2, number).to_parquet(hub / f"{part}-0000{number}-of-00002.parquet", batch_size=2)
    for path in (hub.parent, hub, f"{hub}/*.parquet", f"{hub}/{{train,test}}-{{00000..00001}}-of-00002.parquet"):
        check_equal(TableSource(path, "image", "label", split="split", key="image.path", format="parquet"), folder)
    (hub.parent / "README.md").write_text("as a repository of the hub has it", encoding="utf-8")
    for path in (hub.parent, hub):
        with pytest.raises(SourceError, match=r"holds a table: give --data .parquet\(.*image=image, label=label"):
            open_source(str(path))
    (hub / "one.png").touch()
    assert isinstance(open_source(str(hub.parent)), FolderSource)


def test_selections_of_the_same_rows_are_not_put_together(folder: Path, tmp_path: Path) -> None:
    """As repositories of the hub have them: a folder per configuration, with or without folders of its splits."""
    for name in ("full/train", "full/test", "small/train"):
        (tmp_path / "hub" / name).mkdir(parents=True)
        datasets_of(folder)["train"].to_parquet(tmp_path / "hub" / name / "0000.parquet")
    for given in (lambda: open_source(str(tmp_path / "hub")), lambda: TableSource(tmp_path / "hub", format="parquet")):
        with pytest.raises(SourceError, match="full and small"):
            given()
    one = TableSource(tmp_path / "hub" / "full", "image", "label", split="split", format="parquet")
    assert {row.split for row in one} == {"train", "test"}
    assert (
        len(list(TableSource(f"{tmp_path}/hub/*/*/*.parquet", "image", "label", format="parquet"))) == 3 * len(one) / 2
    )
    (tmp_path / "hub" / "small").rename(tmp_path / "small")
    with pytest.raises(SourceError, match=r"holds a table: give --data .parquet"):
        open_source(str(tmp_path / "hub"))  # one configuration, three folders deep
    assert len(list(TableSource(tmp_path / "hub", "image", "label", format="parquet"))) == len(list(one))


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [b"x"], "label": ["a"]}), tmp_path / "1.parquet")
    parquet.write_table(pa.table({"image": [b"x"], "kind": ["a"]}), tmp_path / "2.parquet")
    with pytest.raises(SourceError, match=r"2\.parquet has other columns than"):
        list(TableSource(tmp_path, "image", "label", format="parquet"))
    with pytest.raises(SourceError, match="there is no arrow file"):
        TableSource(tmp_path, "image", "label", format="arrow")


def test_a_column_without_values_in_one_file_has_the_type_of_the_others(tmp_path: Path) -> None:
    empty, full = {"bytes": None, "path": None}, {"bytes": b"image", "path": "b.png"}
    for number, (image, kind, group) in enumerate([(None, None, None), (empty, "a", None), (full, "b", "me")]):
        table = pa.table({"image": [image], "kind": [kind], "group": [group]})
        parquet.write_table(table, tmp_path / f"part-{number}.parquet")
    source = TableSource(tmp_path, "image", "kind", group="group", format="parquet")
    rows = list(source)
    assert [(row.label, row.group) for row in rows] == [(None, None), ("a", None), ("b", "me")]
    assert source.read(rows[2]) == b"image"
    for row in rows[:2]:
        with pytest.raises(ImageError, match="holds no bytes"):
            source.read(row)


def test_a_column_called_split_is_kept(tmp_path: Path) -> None:
    for name, split in (("train-1", "val"), ("train-2", "test")):
        table = pa.table({"image": [b"x"], "label": ["a"], "split": [split]})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    source = TableSource(tmp_path, "image", "label", split="split", format="parquet")
    assert [row.split for row in source] == ["val", "test"]


def test_a_key_column_names_the_rows(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("file,label,id\na.png,x,7\nb.png,y,8\na.png,x,7\n")
    rows = list(TableSource(tmp_path / "t.csv", "file", "label", key="id"))
    assert [row.key for row in rows] == ["7", "8", "7#2"]
    assert "stands in" in str(rows[2].problem)


def table_of(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


def test_a_pattern_may_leave_folders_open_and_splits_that_are_not_asked_for_are_told(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", *NAMES[:4])
    for part in ("train", "test"):
        table_of(tmp_path / part / "0.parquet", {"file": list(NAMES[:2]), "label": ["cat", "dog"]})
    for pattern in ("{train,test}/*.parquet", "t*/0.parquet"):
        source = TableSource(f"{tmp_path}/{pattern}", image="file", label="label", root=folder)
        assert [row.problem for row in source][:2] == [None, None] and "split=split" in " ".join(source.notes())
    apart = TableSource(f"{tmp_path}/t*/0.parquet", image="file", label="label", root=folder, split="split")
    assert not any("split" in note for note in apart.notes())


def test_files_that_differ_name_the_column(tmp_path: Path) -> None:
    table_of(tmp_path / "a.parquet", {"file": ["a"], "label": ["cat"]})
    table_of(tmp_path / "b.parquet", {"file": ["b"], "label": [1]})
    with pytest.raises(SourceError, match="'label' is int64, not string"):
        list(TableSource(tmp_path, image="file", label="label", format="parquet"))
