"""Archives of images: the rows of the folder that was packed, WebDataset's samples, and hostile archives."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from visionadapt.core import spec
from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources import FolderSource, ShardSource
from visionadapt.sources.archives import files
from visionadapt.sources.opening import open_source

from .object_storage import BUCKET, Store, busy, cut, sometimes
from .test_bucket import photos

NAMES = tuple(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(6))


def tar(path: Path, members: Mapping[str, bytes], *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for info in infos:
            file.addfile(info)
    return path


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def content(folder: Path, names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


PARTS = {"train": "train", "valid": "val", "test": "test"}


@pytest.mark.parametrize(
    ("archive", "layout", "names"),
    [
        ("photos", "photos/{split}/{label}", PARTS),
        ("ds", "a/b/{split}/{label}", PARTS),
        ("photos", "./{split}/{label}", PARTS),
        ("photos", "{split}/{split}/{label}", {"seg_train": "train", "seg_test": "test"}),
        ("training", "{split}/{label}", {"Training": "train", "Validation": "val", "Testing": "test"}),
        ("photos", "{label}/{split}", PARTS),
        ("photos", "photos/{label}/{split}", PARTS),
    ],
)
def test_splits_in_an_archive_are_those_of_its_folders(
    tmp_path: Path, archive: str, layout: str, names: Mapping[str, str]
) -> None:
    members, expected = {}, []
    for name, split in names.items():
        for label in ("cat", "dog"):
            members[f"{layout.format(split=name, label=label)}/{label}.png"] = b"image"
            expected.append((split, (label,)))
    for source in (zipped(tmp_path / f"{archive}.zip", members), tar(tmp_path / f"{archive}.tar", members)):
        found = ShardSource(str(source))
        assert [(record.split, record.labels) for record in found] == expected
        assert found.notes() == ()


def test_images_for_testing_without_a_class_have_none(tmp_path: Path) -> None:
    names = ("ds/train/cat/1.png", "ds/train/dog/1.png", "ds/test/1.png")
    rows = list(ShardSource(str(zipped(tmp_path / "ds.zip", dict.fromkeys(names, b"image")))))
    assert [(row.split, row.labels) for row in rows] == [("train", ("cat",)), ("train", ("dog",)), ("test", ())]


def test_splits_below_folders_that_differ_are_refused_unless_a_column_says_them(tmp_path: Path) -> None:
    names = [f"{site}/{split}/{label}/1.png" for site in "ab" for split in ("train", "test") for label in ("x", "y")]
    path = zipped(tmp_path / "sites.zip", dict.fromkeys(names, b"image"))
    with pytest.raises(SourceError, match="b/test/y"):
        list(ShardSource(str(path)))
    assert len(list(ShardSource(str(path), split=None))) == 8


@pytest.mark.parametrize(
    "names", [("cat/1.png", "cat/old/1.png", "dog/1.png"), ("cat/ann/1.png", "cat/bo/1.png", "dog/ann/1.png")]
)
def test_folders_in_classes_are_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The class is the last folder, which may be that of a patient."""
    (note,) = ShardSource(str(zipped(tmp_path / "in.zip", dict.fromkeys(names, b"image")))).notes()
    assert "last folder" in note and names[1 if "old" in names[1] else 0].rpartition("/")[0] in note


@pytest.mark.parametrize("kind", ["tar", "deflated", "stored"])
def test_rows_are_those_of_the_folder_that_was_packed(tmp_path: Path, kind: str) -> None:
    folder = photos(tmp_path / "set", *NAMES)
    members = list(content(folder).items())
    for number in range(3):
        part = dict(members[4 * number : 4 * number + 4])
        if kind == "tar":
            tar(tmp_path / f"part-{number:02d}.tar", part)
        else:
            method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
            zipped(tmp_path / f"part-{number:02d}.zip", part, method)
    suffix = "tar" if kind == "tar" else "zip"
    source = open_source(f"{tmp_path}/part-{{00..02}}.{suffix}")
    local = FolderSource(folder)
    assert isinstance(source, ShardSource)
    assert [(row.key, row.labels, row.problem) for row in source] == [(row.key, row.labels, None) for row in local]
    assert source.classes == local.classes
    assert [source.read(row) for row in source] == [local.read(row) for row in local]
    assert [row.columns["shard"] for row in source][::4] == [f"part-{number:02d}.{suffix}" for number in range(3)]
    again = spec.parse(spec.format(source.resolved(), "source"), "source")
    assert [row.key for row in again] == [row.key for row in source]
    assert [row.key for row in ShardSource(f"{tmp_path}/part-*.{suffix}")] == [row.key for row in source]
    other = pickle.loads(pickle.dumps(Manifest(source, source)))
    assert other.read(7) == local.read(local[7])
    assert source.version_of(source[0]) != source.version_of(source[1])


def test_a_folder_of_archives_may_hold_notes_too(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", *NAMES)
    shards = tmp_path / "shards"
    shards.mkdir()
    tar(shards / "a.tar", content(folder))
    (shards / "README.md").write_text("what is in it", encoding="utf-8")
    source = open_source(str(shards))
    assert isinstance(source, ShardSource) and len(list(source)) == len(NAMES)
    (shards / "one.png").touch()
    assert isinstance(open_source(str(shards)), FolderSource)


def test_samples_of_webdataset_have_their_texts_as_columns(tmp_path: Path) -> None:
    image = (photos(tmp_path / "set", "a.png") / "a.png").read_bytes()
    tar(
        tmp_path / "train-000.tar",
        {
            "0001.jpg": image,
            "0001.cls": b"1\n",
            "0001.json": json.dumps({"who": "anna", "what": {"colour": "red"}}).encode(),
            "0002.cls": b"0",
            "0002.jpg": image,
            "0002.npy": b"xxx",
            "0003.jpg": image,
            "0003.json": b"{broken",
        },
    )
    tar(tmp_path / "val-000.tar", {"0001.jpg": image, "0001.cls": b"0"})
    source = ShardSource(str(tmp_path), labels={"0": "cat", "1": "dog"}, group="json.who")
    rows = list(source)
    assert [row.key for row in rows] == ["0001.jpg", "0002.jpg", "0003.jpg", "val-000.tar/0001.jpg"]
    assert [row.label for row in rows] == ["dog", "cat", None, "cat"]
    assert [row.split for row in rows] == ["train", "train", "train", "val"]
    assert [row.group for row in rows] == ["anna", None, None, None]
    assert rows[0].columns["json.what.colour"] == "red"
    assert source.classes == ("cat", "dog")
    assert source.notes() == ("ignored 2 members that are no images: 1 .npy, 1 .json that cannot be read",)
    assert [row.label for row in ShardSource(str(tmp_path), label="json.what.colour")][:2] == ["red", None]


def test_splits_are_found_in_the_first_folder(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", "train/cat/1.png", "val/dog/1.png", "test/2.png")
    tar(tmp_path / "all.tar", content(folder, ("train/cat/1.png", "val/dog/1.png", "test/2.png")))
    found = [(row.label, row.split) for row in ShardSource(str(tmp_path / "all.tar"))]
    assert found == [("cat", "train"), ("dog", "val"), (None, "test")]


def test_hostile_members_are_rows_with_a_reason(tmp_path: Path) -> None:
    image = (photos(tmp_path / "set", "a.png") / "a.png").read_bytes()
    infos = []
    for name, kind in (
        ("cat/link.png", tarfile.SYMTYPE),
        ("cat/hard.png", tarfile.LNKTYPE),
        ("cat/pipe.png", tarfile.FIFOTYPE),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        infos.append(info)
    names = ("cat/1.png", "../cat/2.png", "/etc/3.png", "cat/../../4.png", "C:\\cat\\5.png")
    tar(tmp_path / "a.tar", dict.fromkeys(names, image), *infos)
    with tarfile.open(tmp_path / "a.tar", "a") as file:
        file.add(tmp_path / "set" / "a.png", "cat/1.png")
    rows = list(ShardSource(str(tmp_path / "a.tar")))
    assert len(rows) == 9
    assert [row.problem is None for row in rows] == [True, *[False] * 8]
    reasons = " ".join(str(row.problem) for row in rows)
    for told in ("leads out of the archive", "is a link", "no plain file", "stands in a.tar, member 1 already"):
        assert told in reasons
    assert len({row.key for row in rows}) == 9
    assert not any(".." in row.key or row.key.startswith("/") for row in rows)


@pytest.mark.parametrize("cut_at", [700, 512 * 3 + 100, -10240, -9000])
def test_a_tar_that_is_cut_off_keeps_what_is_whole(tmp_path: Path, cut_at: int) -> None:
    folder = photos(tmp_path / "set", *NAMES)
    path = tar(tmp_path / "a.tar", content(folder))
    whole = path.read_bytes().rstrip(b"\0")
    end = -(-len(whole) // 512) * 512
    kept = end + 10240 + cut_at if cut_at < 0 else cut_at
    path.write_bytes((whole + bytes(20480))[: min(kept, end)])
    source = ShardSource(str(path))
    rows = list(source)
    assert "is cut off" in str(rows[-1].problem)
    good = [row for row in rows if row.problem is None]
    assert [source.read(row) for row in good] == [(folder / row.key).read_bytes() for row in good]


def test_an_archive_that_is_none_is_a_row_among_those_of_others(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", *NAMES)
    tar(tmp_path / "1.tar", content(folder))
    (tmp_path / "2.tar").write_bytes(b"not an archive" * 100)
    (tmp_path / "3.zip").write_bytes(b"PK\x03\x04 neither")
    (tmp_path / "4.tar").write_bytes(b"")
    rows = list(ShardSource([str(tmp_path / name) for name in ("1.tar", "2.tar", "3.zip", "4.tar")]))
    assert [row.problem is None for row in rows] == [*[True] * len(NAMES), False, False, False]


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "a.zip", {"cat/1.png": bytes(50_000_000), "cat/2.png": b"small"})
    data = bytearray(bomb.read_bytes())
    start = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    data[start + 24 : start + 28] = (1000).to_bytes(4, "little")  # it says that it has 1,000 bytes
    bomb.write_bytes(bytes(data))
    source = ShardSource(str(bomb))
    first, second = list(source)
    with pytest.raises(ImageError, match="another size than its archive says"):
        source.read(first)
    assert source.read(second) == b"small"
    with pytest.raises(ImageError, match="more than the limit"):
        ShardSource(str(bomb), max_bytes=4).read(second)


def test_encrypted_members_and_other_methods_are_rows_with_a_reason(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"cat/1.png": b"abc"}, zipfile.ZIP_BZIP2)
    data = bytearray(zipped(tmp_path / "b.zip", {"cat/2.png": b"abc"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(bytes(data))
    problems = [str(row.problem) for row in ShardSource([str(path), str(tmp_path / "b.zip")])]
    assert "method that is not read" in problems[0]
    assert "encrypted" in problems[1]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.7z", "nothing.tar", "x-{00..01}.tar"])
def test_what_is_no_archive_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    if "gz" in name or "7z" in name:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError):
        ShardSource(str(tmp_path / name))


@pytest.mark.parametrize("block", [1 << 10, files.BLOCK])
def test_archives_in_a_bucket_give_the_same_rows(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    files._of_process.cache_clear()
    folder = photos(tmp_path / "set", *NAMES)
    members = content(folder)
    tar(tmp_path / "s-0.tar", dict(list(members.items())[:6]))
    zipped(tmp_path / "s-1.zip", dict(list(members.items())[6:]))
    for name in ("s-0.tar", "s-1.zip"):
        store.put(f"shards/{name}", (tmp_path / name).read_bytes())
    store.fault = sometimes(0.1, 5, busy, cut(store))
    source = ShardSource(f"s3://{BUCKET}/shards")
    assert {row.key: source.read(row) for row in source} == members
    backwards = list(source)[::-1]
    assert {row.key: source.read(row) for row in backwards} == members
    assert len({source.identity_of(row) for row in source} - {None}) == len(members)
    store.put("shards/s-0.tar", b"other bytes")
    files._of_process.cache_clear()
    with pytest.raises(ImageError, match="has changed"):
        source.read(backwards[-1])


def samples(*numbers: int, image: bytes, stem: str = "{:03d}") -> dict[str, bytes]:
    return {
        f"{stem.format(number)}.{suffix}": data
        for number in numbers
        for suffix, data in (("cls", b"dog" if number % 2 else b"cat"), ("png", image))
    }


def test_texts_belong_to_the_image_of_their_name_wherever_the_archive_stores_them(tmp_path: Path) -> None:
    image = (photos(tmp_path / "set", "a.png") / "a.png").read_bytes()
    dotted = samples(0, 1, 2, image=image, stem="shop.{}")
    apart = samples(0, 1, 2, image=image)
    texts_last = dict(sorted(apart.items(), key=lambda item: item[0].endswith("cls")))
    texts_first = dict(reversed(texts_last.items()))
    several = {"7.left.png": image, "7.right.png": image, "7.cls": b"cat", "7.right.json": b'{"a": 1}', "8.cls": b"dog"}
    for members, labels in (
        (dotted, ["cat", "dog", "cat"]),
        (texts_last, ["cat", "dog", "cat"]),
        (texts_first, ["cat", "dog", "cat"]),
        (several, ["cat", "cat"]),
    ):
        source = ShardSource(str(tar(tmp_path / "photos.tar", members)))
        assert sorted((row.key, row.label) for row in source) == list(
            zip(sorted(name for name in members if name.endswith(".png")), labels, strict=True)
        )
    assert [row.columns.get("json.a") for row in source] == [None, "1"]
    assert source.notes() == ("ignored 1 member that is no image: 1 .cls of no image",)


def test_archives_of_one_name_in_several_folders_have_keys_and_splits_of_their_own(tmp_path: Path) -> None:
    members = content(photos(tmp_path / "set", *NAMES))
    for folder in ("train", "val", "other"):
        (tmp_path / folder).mkdir()
        tar(tmp_path / folder / "0.tar", members)
    source = ShardSource(f"{tmp_path}/{{train,val,other}}/0.tar")
    rows = list(source)
    assert len({row.key for row in rows}) == len(rows) == 3 * len(NAMES)
    assert [row.split for row in rows][:: len(NAMES)] == ["train", "val", None]
    twice = ShardSource([str(tmp_path / "val" / "0.tar"), str(tmp_path / "val" / "0.tar")])
    assert len(list(twice)) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "told"), [("a.tar", "gzip"), ("b.tar", "zip"), ("c.zip", "tar"), ("d.zip", "cut"), ("e.tar", "empty")]
)
def test_an_archive_of_another_kind_says_so(tmp_path: Path, name: str, told: str) -> None:
    members = content(photos(tmp_path / "set", *NAMES))
    data = {
        "gzip": gzip.compress(tar(tmp_path / "x", members).read_bytes()),
        "tar": (tmp_path / "x").read_bytes(),
        "zip": zipped(tmp_path / "y", members).read_bytes(),
        "cut": (tmp_path / "y").read_bytes()[:500] if (tmp_path / "y").exists() else b"",
        "empty": b"",
    }[told]
    (tmp_path / name).write_bytes(data)
    (row,) = ShardSource(str(tmp_path / name))
    words = {"gzip": "compressed", "zip": ".zip", "tar": ".tar", "cut": "cut off", "empty": "0 bytes"}
    assert words[told] in str(row.problem)


def test_a_name_that_leads_out_makes_no_class(tmp_path: Path) -> None:
    members = content(photos(tmp_path / "set", *NAMES))
    source = ShardSource(str(tar(tmp_path / "a.tar", {**members, "../../etc/x.png": b"", "/root/y.png": b""})))
    assert source.classes == ("cat", "dog")
    assert sum(row.problem is not None for row in source) == 2


def test_a_compressed_archive_is_refused_whatever_compresses_it(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.tar.xz", "a.tgz", "a.tar.zst"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
        with pytest.raises(SourceError, match="make it a plain"):
            open_source(str(tmp_path / name))


def test_a_mask_beside_an_image_is_no_image_but_one_alone_is(tmp_path: Path) -> None:
    image = next(iter(content(photos(tmp_path / "set", *NAMES)).values()))
    names = (
        "a/1.png",
        "a/1.mask.png",
        "a/1.cls",
        "a/2.seg.png",
        "a/3.x.png",
        "a/3.y.mask.png",
        "a/3.png",
        "b/mask.png",
    )
    source = ShardSource(tar(tmp_path / "t.tar", {name: b"cat" if name.endswith("cls") else image for name in names}))
    assert [row.key for row in source] == [
        "a/1.png",
        "a/2.seg.png",
        "a/3.x.png",
        "a/3.y.mask.png",
        "a/3.png",
        "b/mask.png",
    ]
    assert source.notes() == ("ignored 1 member that is no image: 1 .mask.png",)
