"""Odd folders: links that multiply, names that collide, and lists with impossible names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from visionadapt.core import spec
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FileSource, FolderSource

from .test_folder import make


@pytest.mark.slow
def test_links_between_folders_do_not_multiply_without_end(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(8)]
    make(tmp_path, *(f"{name}/1.png" for name in names))
    for here in names:
        for there in set(names) - {here}:
            (tmp_path / here / there).symlink_to(f"../{there}")
    records = list(FolderSource(tmp_path))
    good = [record for record in records if record.problem is None]
    assert len(good) == 8 + 8 * 7 + 8 * 7 * 6
    assert {record.problem for record in records} - {None} == {
        "a symbolic link to a folder that contains it",
        "a symbolic link to a folder, inside 2 others",
    }


def test_a_copy_s_number_makes_no_key_that_a_file_has(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "e\u0301.png")
    make(tmp_path / "data", "a/e\u0301.png", f"a/{composed}", f"a/{composed}#2", "b/1.png")
    records = list(FolderSource(tmp_path / "data"))
    assert len({record.key for record in records}) == len(records) == 4
    assert sum(record.problem is not None for record in records) == 1
    assert len({record.key for record in FileSource(tmp_path / "data")}) == 4


def test_impossible_file_names_are_rows_with_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    source = FileSource([tmp_path / "a.png", tmp_path / ("x" * 300), f"{tmp_path}/a\0b", "y/" * 3000], strict=False)
    first, *others = source
    assert source.read(first) == b"a.png"
    for record in others:
        with pytest.raises(ImageError, match="cannot be read"):
            source.read(record)


def test_booleans_in_lower_case(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    assert [record.key for record in spec.parse(f"folder({tmp_path}, labelled=false)", "source")] == ["a.png"]
    assert len(list(spec.parse("files(missing.png, strict=false)", "source"))) == 1
    with pytest.raises(SourceError, match="labelled='maybe' must be true or false"):
        spec.parse(f"folder({tmp_path}, labelled=maybe)", "source")
    for source in (f"folder({tmp_path}", f"files({tmp_path}"):
        with pytest.raises(SourceError, match="max_bytes='x' must be a whole number"):
            spec.parse(f"{source}, max_bytes=x)", "source")
