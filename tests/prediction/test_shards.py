"""Tables of shards: put together they are the table of one process, or nothing is written."""

from __future__ import annotations

import csv
import json
import shutil
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from visionadapt.core.sharding import Part, Shard
from visionadapt.errors import RunError
from visionadapt.prediction import bulk
from visionadapt.prediction.embedding import read_embedding
from visionadapt.prediction.shards import merge, proof_path, write_proof

from ..conftest import SMALL_BACKBONE

Run = Callable[..., tuple[int, str]]
Make = Callable[..., Path]
ROWS = [(f"{number}, 'odd' \"name\"\n{number}.jpg", -0.5 * number) for number in range(100)]


def write(path: Path, rows: list[tuple[str, float]]) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("file", "score"), *rows])
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"file": name, "score": score}) + "\n" for name, score in rows))
    else:
        names, scores = [name for name, _ in rows], [score for _, score in rows]
        parquet.write_table(pa.table({"file": pa.array(names, "string"), "score": pa.array(scores, "float64")}), path)


def shards(out: Path, count: int = 3, left_out: tuple[int, ...] = ()) -> list[Path]:
    """Write all rows as shards, one of which may be empty."""
    parts = [[row for row in range(len(ROWS)) if row * row % 7 % count == number] for number in range(count)]
    paths = []
    for number, rows in enumerate(parts, 1):
        path = Shard(number, count).path(out)
        write(path, [ROWS[row] for row in rows if row not in left_out])
        gone = [rows.index(row) for row in left_out if row in rows]
        write_proof(path, Part(Shard(number, count), array("Q", rows), len(ROWS), "keys"), "model", len(gone), gone)
        paths.append(path)
    return paths


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_merged_shards_are_the_table_in_the_order_of_the_source(tmp_path: Path, suffix: str, count: int) -> None:
    out = tmp_path / f"table{suffix}"
    shards(out, count)
    merged = merge(out)
    assert (merged.rows, merged.shards, merged.left_out) == (100, count, 0)
    write(tmp_path / f"whole{suffix}", ROWS)
    if suffix == ".parquet":
        assert parquet.read_table(out).equals(parquet.read_table(tmp_path / "whole.parquet"))
    else:
        assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_rejected_rows_that_a_table_leaves_out_are_counted(tmp_path: Path) -> None:
    shards(tmp_path / "table.csv", 3, left_out=(4, 50, 99))
    assert merge(tmp_path / "table.csv").left_out == 3
    with (tmp_path / "table.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 98


def _forget(paths: list[Path]) -> None:
    paths[1].unlink()


def _forget_proof(paths: list[Path]) -> None:
    proof_path(paths[1]).unlink()


def _cut(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:-10])


def _twice(paths: list[Path]) -> None:
    shutil.copy(paths[0], paths[1])
    shutil.copy(proof_path(paths[0]), proof_path(paths[1]))


def _other(**facts: Any) -> Callable[[list[Path]], None]:
    def change(paths: list[Path]) -> None:
        head, _, places = proof_path(paths[1]).read_bytes().partition(b"\n")
        proof_path(paths[1]).write_bytes(json.dumps({**json.loads(head), **facts}).encode() + b"\n" + places)

    return change


def _lose_a_row(paths: list[Path]) -> None:
    proof_path(paths[1]).write_bytes(proof_path(paths[1]).read_bytes()[:-8])


def _claim_anothers_row(paths: list[Path]) -> None:
    data = bytearray(proof_path(paths[1]).read_bytes())
    data[-8:] = np.array([98], "<u8").tobytes()
    proof_path(paths[1]).write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_forget, "1 of 3 shards are missing; compute --shard 2/3"),
        (_forget_proof, "is not a whole table of a shard"),
        (_cut, "is not a whole table of a shard"),
        (_twice, "is not a whole table of a shard"),
        (_other(total=99), "is of other rows of the source"),
        (_other(keys="other"), "is of other rows of the source"),
        (_other(model="other"), "is of other a run or model"),
        (_other(total=-1), "is not a whole table"),
        (_lose_a_row, "of the source is in no shard"),
        (_claim_anothers_row, "of the source is"),
    ],
)
def test_whatever_is_wrong_nothing_is_written(tmp_path: Path, harm: Callable[[list[Path]], None], told: str) -> None:
    out = tmp_path / "table.jsonl"
    harm(shards(out))
    with pytest.raises(RunError, match=told):
        merge(out)
    assert not out.exists()


def test_shards_of_two_divisions_are_not_mixed(tmp_path: Path) -> None:
    out = tmp_path / "table.jsonl"
    with pytest.raises(RunError, match=r"there are no tables such as table-00001-of-00016\.jsonl"):
        merge(out)
    shards(out, 2)
    shards(out, 3)
    with pytest.raises(RunError, match="shards of 2 and of 3 parts"):
        merge(out)


def assert_alike(one: Path, other: Path) -> None:
    """Two tables of predictions have the same rows; numbers may differ in float32's last digits, as batches do."""
    with one.open(newline="") as first, other.open(newline="") as second:
        for own, theirs in zip(csv.reader(first), csv.reader(second), strict=True):
            for cell, counterpart in zip(own, theirs, strict=True):
                if cell != counterpart:
                    assert float(cell) == pytest.approx(float(counterpart), abs=1e-5)


@pytest.mark.slow
def test_predict_and_embed_by_shards_give_the_tables_of_one_process(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tinted_folder(count=8)
    (folder / "blood" / "broken.png").write_bytes(b"no image")
    small = ["--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--precision", "float32"]
    assert visionadapt("train", "--data", folder, "--out", tmp_path / "run", "--adapter", "none", *small)[0] == 0
    predict = ["predict", tmp_path / "run", folder, "--out"]
    assert visionadapt(*predict, tmp_path / "whole.csv")[0] == 0
    out = tmp_path / "table.csv"
    append = bulk._append

    def stopped(*arguments: Any) -> None:
        append(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "_append", stopped)
    assert visionadapt(*predict, out, "--shard", "2/3")[0] == 130
    monkeypatch.setattr(bulk, "_append", append)
    for number in (1, 2, 3):
        code, output = visionadapt(*predict, out, "--shard", f"{number}/3")
        assert code == 0, output
    assert "before the interruption" in visionadapt(*predict, out, "--shard", "2/3")[1]
    proof_path(Shard(3, 3).path(out)).unlink()  # as if the process had ended right before
    assert visionadapt(*predict, out, "--shard", "3/3")[0] == 0
    code, output = visionadapt("merge", out)
    assert code == 0, output
    assert "17 rows of 3 shards" in output
    assert_alike(out, tmp_path / "whole.csv")
    embed = ["embed", folder, "--run", tmp_path / "run", "--out"]
    assert visionadapt(*embed, tmp_path / "whole.parquet")[0] == 0
    for number in (1, 2):
        assert visionadapt(*embed, tmp_path / "features.parquet", "--shard", f"{number}/2")[0] == 0
    assert "1 rejected rows left out" in visionadapt("merge", tmp_path / "features.parquet")[1]
    whole, merged = (read_embedding(tmp_path / f"{name}.parquet") for name in ("whole", "features"))
    assert merged.keys == whole.keys
    assert merged.facts == whole.facts
    np.testing.assert_allclose(merged.vectors, whole.vectors, atol=1e-5)
    assert visionadapt("predict", tmp_path / "run", folder, "--shard", "1/2")[0] == 2
