"""The lines that training says about copies, from the hashes that it has anyway."""

from __future__ import annotations

from visionadapt.auditing import quick
from visionadapt.data import Finding
from visionadapt.records import Manifest, Record
from visionadapt.sources import FileSource


def part(*rows: tuple[str, str, str]) -> tuple[Manifest, list[Finding]]:
    """A manifest and findings of (key, label, hash); no hash is a row that could not be read."""
    records = [Record(key, (label,) if label else ()) for key, label, _ in rows]
    findings = [Finding(index, row[2], problem=None if row[2] else "broken") for index, row in enumerate(rows)]
    return Manifest(FileSource(()), records, ("cat", "dog")), findings


def test_nothing_wrong_gives_nothing() -> None:
    assert quick({"train": part(("a", "cat", "1"), ("b", "dog", "2")), "val": part(("c", "cat", "3"))}) == ()
    assert quick({"train": part(("a", "cat", "1"), ("b", "cat", "1"), ("x", "", ""), ("y", "", ""))}) == ()
    assert quick({}) == ()


def test_copies_in_both_parts_and_with_two_labels() -> None:
    train = part(("a", "cat", "1"), ("b", "dog", "1"), ("c", "dog", "2"))
    val = part(("d", "cat", "1"), ("e", "dog", "2"), ("f", "", "2"))
    leaks, conflicts = quick({"train": train, "val": val})
    assert leaks.startswith("3 held-out pictures are exact copies")
    assert "such as d and a" in leaks
    assert conflicts.startswith("1 pictures are exact copies of others that have another label")
    assert "such as b and a" in conflicts
