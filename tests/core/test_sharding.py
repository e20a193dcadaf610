"""Rows are divided by their keys alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from visionadapt.core.naming import stable_hash
from visionadapt.core.sharding import Shard, part_of
from visionadapt.errors import UsageError
from visionadapt.sources import FileSource


def test_each_key_is_in_one_part_whatever_other_keys_there_are() -> None:
    keys = [f"class/{number}.jpg" for number in range(4000)]
    parts = [Shard(number, 16) for number in range(1, 17)]
    counts = Counter(next(part.number for part in parts if part.holds(key)) for key in keys)
    assert all(sum(part.holds(key) for part in parts) == 1 for key in keys)
    assert min(counts.values()) > 180
    assert max(counts.values()) < 330
    assert Shard(stable_hash("shard", "a.jpg") % 16 + 1, 16).holds("a.jpg")


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
