"""What a person decides in findings.csv: rows are dropped and relabelled, and the text of the file is not trusted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import UsageError
from visionadapt.sources import MemorySource
from visionadapt.sources.edited import Edits, edited

LABELS = {"a.jpg": "cat", "b.jpg": "dog", "=c.jpg": "cat", "d.jpg": "=dog"}
ROWS = Manifest(
    MemorySource(list(LABELS.items())), [Record(key, (label,)) for key, label in LABELS.items()], ("=dog", "cat", "dog")
)


def written(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("file", "label", "action")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_rows_are_dropped_and_relabelled_in_place(tmp_path: Path) -> None:
    decided = [
        ("a.jpg", "cat", "drop"),
        ("b.jpg", "cat", " Relabel "),
        ("'=c.jpg", "'=dog", "relabel"),
        ("d.jpg", "", ""),
    ]
    rows, told = Edits.read(written(tmp_path / "findings.csv", decided)).apply(ROWS)
    assert [record.key for record in rows] == [record.key for record in ROWS]
    assert [record.labels for record in rows] == [(), ("cat",), ("=dog",), ("=dog",)]
    assert [record.problem for record in rows] == ["dropped by findings.csv", None, None, None]
    assert rows.classes == ROWS.classes
    assert "1 row dropped, 2 relabelled" in told
    same = [("b.jpg", "cat", "relabel"), ("d.jpg", "'=dog", "relabel")]
    told = Edits.read(written(tmp_path / "findings.csv", same)).apply(ROWS)[1]
    assert "2 relabelled (1 of them to the label that they have already, such as 'd.jpg')" in told


def test_keys_that_no_row_has_are_told(tmp_path: Path) -> None:
    path = written(
        tmp_path / "f.csv", [("gone.jpg", "", "drop"), ("lost.jpg", "cat", "relabel"), ("a.jpg", "", "drop")]
    )
    told = Edits.read(path).apply(ROWS)[1]
    assert "gone.jpg" in told and "2 entries" in told and "1 row dropped" in told


def test_several_findings_of_one_row(tmp_path: Path) -> None:
    twice = [("a.jpg", "cat", "drop"), ("a.jpg", "cat", ""), ("a.jpg", "cat", "drop"), ("a.jpg", "cat", "keep")]
    assert Edits.read(written(tmp_path / "f.csv", twice)).dropped == {"a.jpg"}


def test_several_labels(tmp_path: Path) -> None:
    rows = Edits.read(written(tmp_path / "f.csv", [("a.jpg", "cat; dog", "relabel")])).apply(ROWS)[0]
    assert rows[0].labels == ("cat", "dog")


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes("\ufefffile;action;label\r\na.jpg;drop;\r\nb.jpg;;\r\n".encode())
    edits = Edits.read(tmp_path / "f.csv")
    assert (edits.dropped, dict(edits.relabelled)) == ({"a.jpg"}, {})


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([("a.jpg", "cat", "delete")], "line 2"),
        ([("a.jpg", "", "relabel")], "line 2"),
        ([("a.jpg", "cat", "drop"), ("a.jpg", "dog", "relabel")], "line 3"),
        ([("a.jpg", "cow", "relabel")], "'cow'"),
    ],
)
def test_mistakes_are_errors(tmp_path: Path, rows: list[tuple[str, ...]], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Edits.read(written(tmp_path / "f.csv", rows)).apply(ROWS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xd8\xff\xe0")
    written(tmp_path / "old.csv", [("a.jpg", "cat")], ("file", "label"))
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("binary", "old.csv", "empty.csv", "none.csv", "."):
        with pytest.raises(UsageError):
            Edits.read(tmp_path / name)


def test_whether_a_person_has_decided(tmp_path: Path) -> None:
    assert not edited(tmp_path / "none.csv")
    assert not edited(written(tmp_path / "a.csv", [("a.jpg", "cat", " ")]))
    assert edited(written(tmp_path / "b.csv", [("a.jpg", "cat", "keep")]))
