"""`FileSource`: single image files, and folders to search."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FileSource

from .test_folder import make


def keys(source: FileSource) -> list[str]:
    return [record.key for record in source]


def test_keys_are_the_paths_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "photos/10.jpg", "photos/9.jpg", "photos/deep/1.png", "photos/.hidden", "one.jpg")
    monkeypatch.chdir(tmp_path)
    source = FileSource(["one.jpg", "photos/", tmp_path / "one.jpg"])
    assert keys(source) == [
        "one.jpg",
        "photos/9.jpg",
        "photos/10.jpg",
        "photos/deep/1.png",
        f"{tmp_path.as_posix()}/one.jpg",
    ]
    assert [source.read(record) for record in source][:2] == [b"one.jpg", b"photos/9.jpg"]
    assert source.classes == ()
    assert all(record.labels == () for record in source)


def test_one_path_needs_no_list(tmp_path: Path) -> None:
    path = make(tmp_path, "one.jpg") / "one.jpg"
    assert FileSource(path) == FileSource(str(path)) == FileSource([path])
    assert keys(FileSource(path)) == [path.as_posix()]


def test_names_are_keyed_in_nfc_and_read_as_they_are_on_disk(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "é.jpg")
    source = FileSource(make(tmp_path, name))
    (record,) = source
    assert record.key.endswith("/é.jpg")
    assert source.read(record) == name.encode()


def test_a_missing_path_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to("nothing")
    for name in ("missing.jpg", "broken"):
        with pytest.raises(SourceError, match=f"no such file or folder: .*{name}"):
            FileSource([make(tmp_path, "a.jpg") / "a.jpg", tmp_path / name])


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "folder/large.jpg", "folder/gone.jpg")
    os.mkfifo(tmp_path / "folder" / "pipe.jpg")
    (tmp_path / "folder" / "out").symlink_to(tmp_path)
    source = FileSource([tmp_path / "folder", tmp_path / "folder" / "pipe.jpg"], max_bytes=3)
    records = {Path(record.key).name: record for record in source}
    (tmp_path / "folder" / "gone.jpg").unlink()
    assert records["out"].problem == "a symbolic link that leaves the folder (follow_links=true follows it)"
    for name, reason in (("large.jpg", "has 16 bytes"), ("gone.jpg", "No such file"), ("pipe.jpg", "is a named pipe")):
        with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
            source.read(records[name])


def test_links_out_of_a_folder_are_followed_where_asked(tmp_path: Path) -> None:
    make(tmp_path, "far/1.jpg", "near/2.jpg")
    (tmp_path / "near" / "far").symlink_to(tmp_path / "far", target_is_directory=True)
    near, far = FileSource(tmp_path / "near"), FileSource(tmp_path / "near", follow_links=True)
    assert [record.problem is None for record in near] == [True, False]
    assert [far.read(record) for record in far] == [b"near/2.jpg", b"far/1.jpg"]
