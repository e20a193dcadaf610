"""Rows are divided by their keys alone."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from visionadapt.core.naming import stable_hash
from visionadapt.core.sharding import Shard, part_of, rows_of
from visionadapt.errors import UsageError
from visionadapt.sources import FileSource, FolderSource, ManifestSource, MemorySource
from visionadapt.sources.pulled.packed import PackedWriter
from visionadapt.sources.pulled.parquet import FrozenFacts, write_frozen
from visionadapt.sources.pulled.rows import MANIFEST, PACKED, FrozenRow, tie_of


def test_each_key_is_in_one_part_whatever_other_keys_there_are() -> None:
    keys = [f"class/{number}.jpg" for number in range(4000)]
    parts = [Shard(number, 16) for number in range(1, 17)]
    counts = Counter(next(part.number for part in parts if part.holds(key)) for key in keys)
    assert all(sum(part.holds(key) for part in parts) == 1 for key in keys)
    assert min(counts.values()) > 180
    assert max(counts.values()) < 330
    for key in ("a.jpg", "ä/b.jpg", "", "not utf-8: \udcff.jpg"):
        assert Shard(stable_hash("shard", key) % 16 + 1, 16).holds(key)


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/0", "-1/4", "a/b", "1/4/2", "1.0/4"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="such as 3/16"):
        Shard.parse(text)


def test_a_part_knows_the_places_of_its_rows(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.png").write_bytes(b"")
    source = FileSource(tmp_path)
    keys = [record.key for record in source]
    found = [part_of(source, Shard(number, 3)) for number in (1, 2, 3)]
    assert sorted(place for _, part in found for place in part.places) == list(range(50))
    for manifest, part in found:
        assert [manifest.key(row) for row in range(len(manifest))] == [keys[place] for place in part.places]
    assert {(part.total, part.keys) for _, part in found} == {(50, found[0][1].keys)}
    assert Shard(3, 16).path(Path("a/table.csv")) == Path("a/table-00003-of-00016.csv")


def pulled(folder: Path, count: int) -> ManifestSource:
    """A manifest as a pull writes it, whose last row has a class that only test rows have."""
    names, last = ("cat", "dog"), FrozenRow("last.jpg", labels=("moon",), split="test")
    with write_frozen(folder / MANIFEST, FrozenFacts(names, "folder")) as write:
        packed = PackedWriter(folder, names)
        rows = [*(FrozenRow(f"{number}.jpg", labels=(names[number % 2],)) for number in range(count)), last]
        for start in range(0, len(rows), 100):
            write(rows[start : start + 100])
        for row in rows:
            packed.append(row)
    packed.finish(folder / PACKED, "fingerprint", tie_of(folder / MANIFEST))
    return ManifestSource(folder)


@pytest.mark.slow
def test_rows_that_are_packed_already_stay_where_they_are(tmp_path: Path) -> None:
    source = pulled(tmp_path, 20_000)
    source.manifest()
    tracemalloc.start()
    try:
        manifest, _ = rows_of(source, None)
        part, _ = rows_of(source, "3/16")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(manifest), 1000 < len(part) < 1500) == (20_001, True)
    assert manifest[20_000].labels == ("moon",)
    assert most < 100_000  # 5 bytes a row


def test_the_part_of_a_pulled_manifest_is_that_of_its_rows(tmp_path: Path) -> None:
    source = pulled(tmp_path, 500)
    rows = [(record.key, None) for record in source]
    for number in (1, 2, 3):
        manifest, part = part_of(source, Shard(number, 3))
        others, other = part_of(MemorySource(rows, "image", "label"), Shard(number, 3))
        assert part == other
        assert [record.key for record in manifest] == [record.key for record in others]


def test_a_class_that_only_test_images_have_is_no_obstacle(tmp_path: Path) -> None:
    names = ["test/wasp/1.png", "train/ant/1.png", "train/bee/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    source = FolderSource(tmp_path)
    assert source.classes == ("ant", "bee")
    assert sorted(record.key for record in rows_of(source, None)[0]) == names
    parts = [rows_of(source, f"{number}/2")[0] for number in (1, 2)]
    assert sorted(record.key for part in parts for record in part) == names
