"""The warnings about copies before training, from the hashes of the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from visionadapt.auditing import quick
from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.sources import FileSource

from .scenes import OPTIONS, clean_folder


def rows_of(*rows: tuple[str, str, str]) -> tuple[Manifest, list[Finding]]:
    """A manifest and findings of (key, label, hash); no hash is a row that could not be read."""
    records = [Record(key, (label,) if label else ()) for key, label, _ in rows]
    findings = [Finding(index, row[2], problem=None if row[2] else "broken") for index, row in enumerate(rows)]
    return Manifest(FileSource(()), records, ("cat", "dog")), findings


def test_clean_rows_give_no_warning() -> None:
    assert quick({"train": rows_of(("a", "cat", "1"), ("b", "dog", "2")), "val": rows_of(("c", "cat", "3"))}) == ()
    assert quick({"train": rows_of(("a", "cat", "1"), ("b", "cat", "1"), ("x", "", ""), ("y", "", ""))}) == ()
    assert quick({}) == ()


def test_copies_in_both_splits_and_with_two_labels() -> None:
    train = rows_of(("a", "cat", "1"), ("b", "dog", "1"), ("c", "dog", "2"))
    val = rows_of(("d", "cat", "1"), ("e", "dog", "2"), ("f", "", "2"))
    leaks, conflicts = quick({"train": train, "val": val})
    assert leaks.startswith("3 held-out files are exact copies")
    assert "such as d and a" in leaks
    assert conflicts.startswith("1 file is an exact copy of one with another label")
    assert "(b and a)" in conflicts


@pytest.mark.slow
def test_training_warns_before_the_first_epoch(visionadapt: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "data", count=6)
    shutil.copy(folder / "train/red/3.png", folder / "val/red/copy.png")
    options = ("--out", tmp_path / "run", "--adapter", "none", "--epochs", 1, *OPTIONS)
    code, output = visionadapt("train", "--data", folder, *options)
    assert code == 0, output
    assert "1 held-out file is an exact copy" in output.partition("epoch 1/1")[0]
    assert "with another label" not in output
