"""Writing is all or nothing, and reading waits for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionadapt.errors import ImageError, RunError
from visionadapt.system.storage import read_file, replacing, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"\0\xff")
    write_text(tmp_path / "b", "ü\udcff\n")
    write_json(tmp_path / "c", {"name": "ü", "values": [1, 2.5, None]})
    assert (tmp_path / "a").read_bytes() == b"\0\xff"
    assert (tmp_path / "b").read_bytes() == "ü\\udcff\n".encode()
    assert json.loads((tmp_path / "c").read_text(encoding="utf-8")) == {"name": "ü", "values": [1, 2.5, None]}
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "model"
    write_bytes(path, b"old")
    with pytest.raises(RunError if isinstance(error, OSError) else type(error)), replacing(path) as file:
        file.write(b"new" * 1000)
        file.flush()
        assert path.read_bytes() == b"old"
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with replacing(path) as file:
            file.write(b"new")
            assert path.read_bytes() == b"old"
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_the_user_s_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_bytes(tmp_path / "secret", b"")
        os.umask(0o022)
        write_bytes(tmp_path / "open", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The process may write files of at most 4 KiB: what a disk without space does to it."""
    path = tmp_path / "model"
    write_bytes(path, b"old")
    code = f"""
import resource, sys
from pathlib import Path
from visionadapt.errors import RunError
from visionadapt.system.storage import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path({str(path)!r})
try:
    write_bytes(path, b"new" * 10_000)
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{path} cannot be written (File too large); what stood there before still does"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"missing/a cannot be written \(No such file or directory\)"):
        write_bytes(tmp_path / "missing" / "a", b"")
    with pytest.raises(RunError, match=r"folder cannot be written \(Is a directory\)"):
        write_bytes(tmp_path / "folder", b"")
    assert names(tmp_path) == ["folder"]


def test_a_link_s_own_place_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_regular_files_are_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", "a", 5) == b"12345"
    with pytest.raises(ImageError, match="a: has 5 bytes, more than the limit max_bytes=4"):
        read_file(tmp_path / "a", "a", 4)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/zero", "is a device, not a regular file"),
        ("pipe", "is a named pipe, not a regular file"),
        (".", "is a folder, not a regular file"),
        ("missing", "cannot be read: No such file or directory"),
        ("a\0b", "cannot be read: embedded null byte"),
        ("x" * 300, "cannot be read: File name too long"),
    ],
)
def test_all_else_is_refused_by_the_name_given(tmp_path: Path, path: str, reason: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError) as caught:
        read_file(tmp_path / path, "the key", 10)
    assert (caught.value.file, caught.value.reason) == ("the key", reason)
