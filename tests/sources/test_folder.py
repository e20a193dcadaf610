"""`FolderSource`: the rows of a folder tree; reading never leaves it or hangs."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visionadapt.core import spec
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FolderSource


def make(root: Path, *files: str) -> Path:
    """Make files whose content is their path below `root`."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    return root


def rows(source: FolderSource) -> list[tuple[str, str | None, str | None]]:
    """Return (key, label, split) of the rows without a problem; each of them can be read."""
    good = [record for record in source if record.problem is None]
    for record in good:
        assert source.read(record)
    return [(record.key, record.label, record.split) for record in good]


def problems(source: FolderSource) -> dict[str, str]:
    return {record.key: record.problem for record in source if record.problem is not None}


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root's right to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_class_folders(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "dog/1.jpg", "cat/2.jpg", "cat/10.jpg", "cat/deep/er/3.png", "cat/no-suffix"))
    assert source.classes == ("cat", "dog")
    assert source.splits == ()
    assert rows(source) == [
        ("cat/2.jpg", "cat", None),
        ("cat/10.jpg", "cat", None),
        ("cat/deep/er/3.png", "cat", None),
        ("cat/no-suffix", "cat", None),
        ("dog/1.jpg", "dog", None),
    ]
    assert source.read(Record("cat/deep/er/3.png")) == b"cat/deep/er/3.png"


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "Validation", "TEST"), ("TRAIN", "valid", "Test"), ("tRAIN", "VAL", "test")],
)
def test_split_folders_in_any_case(tmp_path: Path, train: str, val: str, test: str) -> None:
    make(tmp_path, f"{train}/a/1", f"{train}/b/2", f"{val}/a/3", f"{test}/b/4", f"{test}/only-here/5")
    source = FolderSource(tmp_path)
    assert source.splits == ("train", "val", "test")
    assert source.classes == ("a", "b")
    assert rows(source) == [
        (f"{train}/a/1", "a", "train"),
        (f"{train}/b/2", "b", "train"),
        (f"{val}/a/3", "a", "val"),
        (f"{test}/b/4", "b", "test"),
        (f"{test}/only-here/5", "only-here", "test"),
    ]


@pytest.mark.parametrize(
    ("files", "classes", "splits"),
    [
        (["cat/1", "dog/2", "test/3"], ("cat", "dog", "test"), ()),
        (["cat/1", "dog/2", "train/3"], ("cat", "dog", "train"), ()),
        (["cat/1", "train/3", "test/2"], ("cat", "test", "train"), ()),
        (["cat/1", "dog/2", "train/steam/3"], ("cat", "dog", "train"), ()),
        (["cat/1", "dog/2", "test/tube/3"], ("cat", "dog", "test"), ()),
        (["train/a/1", "train/b/2"], ("a", "b"), ("train",)),
        (["train/a/1", "train/b/2", "notes/readme.txt", "val/a/3"], ("a", "b"), ("train", "val")),
        (["test/a/1", "test/b/2"], ("a", "b"), ("test",)),
    ],
)
def test_what_counts_as_a_split(tmp_path: Path, files: list[str], classes: tuple[str, ...], splits: object) -> None:
    source = FolderSource(make(tmp_path, *files))
    assert source.classes == classes
    assert source.splits == splits


def test_a_test_folder_without_classes_makes_no_class_of_train(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg", "test/notes.txt"))
    assert source.classes == ("a", "b")
    assert rows(source) == [("train/a/1.jpg", "a", "train"), ("train/b/2.jpg", "b", "train")]
    assert problems(source) == {"test/3.jpg": "is outside of all class folders"}


def test_split_folders_without_class_folders_are_refused(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "train/cat.1.jpg", "train/dog.1.jpg", "test/1.jpg"))
    with pytest.raises(SourceError, match="no class folders"):
        _ = source.classes


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, *(f"{name}/x" for name in ("10", "9", "1", "b2", "b10", "A"))))
    assert source.classes == ("1", "9", "10", "A", "b2", "b10")


def test_hidden_and_junk_files_are_not_rows(tmp_path: Path) -> None:
    make(
        tmp_path, "a/1.jpg", "a/.hidden.jpg", "a/Thumbs.db", "a/.DS_Store", "a/desktop.ini", "a/@eaDir/1.jpg/thumb.jpg"
    )
    make(tmp_path, ".git/objects/1", "__MACOSX/a/._1.jpg", ".ipynb_checkpoints/1.jpg", "readme.txt", "labels.csv")
    source = FolderSource(tmp_path)
    assert source.classes == ("a",)
    assert rows(source) == [("a/1.jpg", "a", None)]
    assert problems(source) == {}


def test_an_image_outside_of_all_classes_is_reported(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "a/1.jpg", "stray.JPG", "readme.txt"))
    assert problems(source) == {"stray.JPG": "is outside of all class folders"}


def test_names_are_keyed_in_nfc_and_read_as_they_are_on_disk(tmp_path: Path) -> None:
    label, file = (unicodedata.normalize("NFD", name) for name in ("café", "naïve ☕.jpg"))
    source = FolderSource(make(tmp_path, f"{label}/{file}", "z/1"))
    assert source.classes == ("café", "z")
    record = next(iter(source))
    assert (record.key, record.label) == ("café/naïve ☕.jpg", "café")
    assert source.read(record) == f"{label}/{file}".encode()


def test_two_files_with_the_same_nfc_name_are_reported(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    source = FolderSource(make(tmp_path, f"a/{composed}", f"a/{decomposed}"))
    records = list(source)
    if len(records) == 1:
        pytest.skip("this file system knows one normal form")
    assert [record.key for record in records] == [f"a/{composed}", f"a/{composed}#2"]
    assert [record.problem is None for record in records] == [True, False]


def test_names_that_are_not_utf8_have_a_writable_key(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/cl\xffss"
    try:
        os.mkdir(folder)  # noqa: PTH102 - a Path cannot be made of bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with open(folder + b"/\xfe.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"pixels")
    source = FolderSource(tmp_path)
    assert source.classes == ("cl\\xffss",)
    record = next(iter(source))
    assert record.key == "cl\\xffss/\\xfe.jpg"
    assert source.read(record) == b"pixels"


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "real/1.jpg", "b/2.jpg")
    (tmp_path / "linked").symlink_to("real", target_is_directory=True)
    (tmp_path / "b" / "again.jpg").symlink_to("../real/1.jpg")
    source = FolderSource(tmp_path)
    assert source.classes == ("b", "linked", "real")
    assert [key for key, _, _ in rows(source)] == ["b/2.jpg", "b/again.jpg", "linked/1.jpg", "real/1.jpg"]


def test_a_relative_root_follows_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/real/1.jpg")
    (tmp_path / "data" / "linked").symlink_to("real", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert FolderSource("data").classes == ("linked", "real")
    assert [key for key, _, _ in rows(FolderSource("data"))] == ["linked/1.jpg", "real/1.jpg"]


def test_a_root_that_is_a_link_itself(tmp_path: Path) -> None:
    make(tmp_path, "data/a/1.jpg")
    (tmp_path / "root").symlink_to("data", target_is_directory=True)
    assert rows(FolderSource(tmp_path / "root")) == [("a/1.jpg", "a", None)]


def test_links_that_leave_the_root_lead_nowhere_or_loop_are_reported(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "secret.jpg", "class/secret.jpg")
    root = make(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "a" / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "a" / "up.jpg").symlink_to("../../outside/secret.jpg")
    (root / "a" / "outer").symlink_to(outside / "class", target_is_directory=True)
    (root / "a" / "broken.jpg").symlink_to("nothing.jpg")
    (root / "a" / "self.jpg").symlink_to("self.jpg")
    (root / "a" / "parent").symlink_to("..", target_is_directory=True)
    (root / "b" / "here").symlink_to(".", target_is_directory=True)
    source = FolderSource(root)
    assert source.classes == ("a", "b")
    assert [key for key, _, _ in rows(source)] == ["a/1.jpg", "b/2.jpg"]
    leaves = "a symbolic link that leaves the folder (follow_links=true follows it)"
    nowhere = "a symbolic link that leads nowhere"
    loop = "a symbolic link to a folder that contains it"
    assert problems(source) == {
        "a/out.jpg": leaves,
        "a/up.jpg": leaves,
        "a/outer": leaves,
        "a/broken.jpg": nowhere,
        "a/self.jpg": nowhere,
        "a/parent": loop,
        "b/here": loop,
    }


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / name / "link").symlink_to(f"../{other}", target_is_directory=True)
    source = FolderSource(tmp_path)
    keys = [key for key, _, _ in rows(source)]
    assert keys[:3] == ["a/1.jpg", "a/link/2.jpg", "a/link/link/3.jpg"]
    assert len(keys) == 9
    assert sorted(problems(source)) == ["a/link/link/link", "b/link/link/link", "c/link/link/link"]


def test_pipes_and_devices_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    listener = socket.socket(socket.AF_UNIX)
    with listener, tempfile.TemporaryDirectory(dir="/tmp") as short:
        listener.bind(f"{short}/s")
        (Path(short) / "s").rename(tmp_path / "b" / "socket.jpg")
    source = FolderSource(tmp_path)
    reasons = {}
    for record in source:
        try:
            source.read(record)
        except ImageError as error:
            reasons[error.file] = error.reason
    assert reasons == {
        "a/pipe.jpg": "is a named pipe, not a regular file",
        "b/socket.jpg": "is a socket, not a regular file",
    }


def test_an_unreadable_folder_or_file_is_reported() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = make(Path(name), "a/1.jpg", "b/2.jpg", "b/3.jpg")
        root.chmod(0o755)
        (root / "a").chmod(0)
        (root / "b" / "2.jpg").chmod(0)
        with as_nobody():
            source = FolderSource(root)
            assert problems(source) == {"a": "the folder cannot be listed (Permission denied)"}
            with pytest.raises(ImageError, match=r"b/2\.jpg: cannot be read: Permission denied"):
                source.read(Record("b/2.jpg"))
        (root / "a").chmod(0o755)
        root.chmod(0o311)
        with as_nobody(), pytest.raises(SourceError, match=r"cannot be listed \(Permission denied\)"):
            _ = FolderSource(root).classes
        root.chmod(0o755)


def test_reading_never_leaves_the_root(tmp_path: Path) -> None:
    make(tmp_path / "outside", "secret.jpg")
    root = make(tmp_path / "root", "a/1.jpg", "a/2.jpg", "a/deep/3.jpg", "a/4.jpg")
    source = FolderSource(root)
    one, two, four, deep = list(source)
    for path, target in (("1.jpg", "outside/secret.jpg"), ("4.jpg", "root/a/4.jpg")):
        (root / "a" / path).unlink()
        (root / "a" / path).symlink_to(tmp_path / target)
    (root / "a" / "deep" / "3.jpg").unlink()
    (root / "a" / "deep").rmdir()
    (root / "a" / "deep").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "outside" / "3.jpg").write_text("secret")
    for record in (one, deep, Record("../outside/secret.jpg"), Record(str(tmp_path / "outside" / "secret.jpg"))):
        with pytest.raises(ImageError, match="leads out of the folder"):
            source.read(record)
    with pytest.raises(ImageError, match="cannot be read"):
        source.read(four)
    assert source.read(two) == b"a/2.jpg"
    (root / "a" / "2.jpg").unlink()
    with pytest.raises(ImageError, match=r"a/2\.jpg: cannot be read: No such file or directory"):
        source.read(two)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "a/1234.jpg"), max_bytes=9)
    with pytest.raises(ImageError, match="has 10 bytes, more than the limit max_bytes=9"):
        source.read(next(iter(source)))
    assert FolderSource(tmp_path, max_bytes=10).read(Record("a/1234.jpg")) == b"a/1234.jpg"


def test_wrong_roots_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "file.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no such folder: .*missing"):
        FolderSource(tmp_path / "missing")
    with pytest.raises(SourceError, match=r"file\.jpg is a file"):
        FolderSource(tmp_path / "file.jpg")
    for root in (tmp_path / "empty", make(tmp_path / "flat", "1.jpg", "2.jpg")):
        with pytest.raises(SourceError, match="no class folders"):
            _ = FolderSource(root).classes
    assert list(FolderSource(tmp_path / "empty")) == []


def test_an_empty_class_folder_is_a_class(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")
    (tmp_path / "b").mkdir()
    assert FolderSource(tmp_path).classes == ("a", "b")


def test_unlabelled_folders(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "1.jpg", "train/a/2.jpg", ".hidden"), labelled=False)
    assert source.classes == () and source.splits == ()
    assert rows(source) == [("1.jpg", None, None), ("train/a/2.jpg", None, None)]


def test_a_source_can_be_pickled_and_compared(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "a/1.jpg"))
    assert source == FolderSource(str(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    assert again == source and list(again) == list(source)


def test_groups_and_splits_by_pattern(tmp_path: Path) -> None:
    make(tmp_path, "hat/anna-1.VAL.jpg", "hat/bob-2.jpg", "shoe/anna-3.Test.jpg", "shoe/4.jpg")
    source = FolderSource(tmp_path, group="([a-z]+)-[0-9]", split="(?i)val|test")
    assert [(record.key, record.group, record.split) for record in source] == [
        ("hat/anna-1.VAL.jpg", "anna", "val"),
        ("hat/bob-2.jpg", "bob", None),
        ("shoe/4.jpg", None, None),
        ("shoe/anna-3.Test.jpg", "anna", "test"),
    ]
    assert spec.parse(spec.format(source, "source"), "source") == source
    with pytest.raises(SourceError, match=r"hat/anna-1\.VAL\.jpg: split= .*'anna'"):
        list(FolderSource(tmp_path, split="anna"))
    for pattern, message in (("(", "is no regular expression"), ("(a)(b)", "has 2 pairs of brackets")):
        with pytest.raises(SourceError, match=message):
            FolderSource(tmp_path, group=pattern)


def test_a_split_by_pattern_takes_precedence_over_the_folders(tmp_path: Path) -> None:
    make(tmp_path, "train/hat/1.jpg", "train/hat/2.jpg", "val/hat/3.jpg")
    source = FolderSource(tmp_path, split="train/.*/2.jpg|x")
    with pytest.raises(SourceError, match=r"finds 'train/hat/2\.jpg'"):
        list(source)
    (tmp_path / "train" / "hat" / "2.jpg").rename(tmp_path / "train" / "hat" / "2-valid.jpg")
    assert [r.split for r in FolderSource(tmp_path, split="-(valid)")] == ["train", "val", "val"]
