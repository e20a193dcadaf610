"""Tables as they come: nested beyond reason, with times that Python does not know, and settings of the wrong kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from visionadapt.sources import TableSource

from .test_folder import make


def write_parquet(folder: Path, names: list[str], columns: list[Any]) -> Path:
    make(folder, "a.png", "b.png")
    parquet.write_table(pa.Table.from_arrays([pa.array(["a.png", "b.png"]), *columns], ["file", *names]), folder / "t")
    return folder / "t"


@pytest.mark.parametrize("depth", range(300, 1000, 100))
def test_a_json_row_of_any_depth_costs_itself_at_most(tmp_path: Path, depth: int) -> None:
    make(tmp_path, "a.png", "b.png")
    deep = '{"file": "a.png", "label": "x", "more": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "t.jsonl").write_text(f"{deep}\n{json.dumps({'file': 'b.png', 'label': 'y'})}\n")
    first, second = TableSource(tmp_path / "t.jsonl", "file", "label")
    assert first.key == "a.png" or first.problem == "has lists or objects in one another too deeply (line 1)"
    assert (second.key, second.labels, second.problem) == ("b.png", ("y",), None)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([1, None], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([253402300800, None], pa.timestamp("s")), "10000-01-01 00:00:00.000"),
        (pa.array([1, None], pa.duration("ns")), "1"),
        (pa.array([2**30, None], pa.date32()), None),
    ],
)
def test_times_that_python_does_not_know(tmp_path: Path, column: Any, text: str | None) -> None:
    first, second = TableSource(write_parquet(tmp_path, ["when"], [column]), "file", format="parquet")
    assert text is None or first.columns["when"] == text
    assert second.columns == {}


def test_a_parquet_column_that_is_there_twice_matters_only_where_it_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, ["x", "x"], [pa.array([1, 2]), pa.array([3, 4])])
    assert [record.key for record in TableSource(path, "file", format="parquet")] == ["a.png", "b.png"]


def test_a_parquet_list_of_fixed_length_is_a_list(tmp_path: Path) -> None:
    column = pa.array([["x", "y"], ["y", "z"]], pa.list_(pa.string(), 2))
    source = TableSource(write_parquet(tmp_path, ["labels"], [column]), "file", "labels", format="parquet")
    assert [record.labels for record in source] == [("x", "y"), ("y", "z")]
