"""Pulled manifests read back: mapped columns equal the rows that were written, and bytes are checked."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import visionadapt as va
from visionadapt.core.records import Manifest, Record
from visionadapt.data.splits import split
from visionadapt.errors import ImageError, SourceError
from visionadapt.pull.pull import pull
from visionadapt.sources import FolderSource, ManifestSource
from visionadapt.sources.opening import manifest_of
from visionadapt.sources.pulled import packed
from visionadapt.sources.pulled.packed import PackedWriter, open_columns
from visionadapt.sources.pulled.rows import FrozenRow, location_of

from ..core.test_records import columns_are_their_rows
from .reading import read_all
from .test_folder import make
from .test_hostile_paths import HOSTILE

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["a/ü.jpg", "\0", "\n"])
NUMBERS = st.none() | st.integers(0, 2**40)
ROWS = st.lists(
    st.builds(
        FrozenRow,
        key=TEXTS,
        sha256=st.sampled_from(["", "ab" * 32, hashlib.sha256(b"x").hexdigest()]),
        size=NUMBERS,
        width=NUMBERS,
        height=NUMBERS,
        mode=st.sampled_from([None, "RGB", "L"]),
        labels=st.lists(st.sampled_from(["ant", "bee", "other"]), max_size=3).map(tuple),
        group=st.none() | TEXTS,
        split=st.sampled_from([None, "train", "val", "test"]),
        problem=st.none() | TEXTS,
        columns=st.dictionaries(st.sampled_from(["age", "place", ""]), TEXTS, max_size=2),
    ),
    max_size=12,
)


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.slow
@settings(max_examples=40)
@given(ROWS)
def test_the_mapped_columns_are_those_of_the_rows(rows: list[FrozenRow]) -> None:
    with TemporaryDirectory() as name:
        (folder := Path(name) / "work").mkdir()
        writer = PackedWriter(folder, ("ant", "bee"))
        for row in rows:
            writer.append(row)
        writer.finish(Path(name) / "packed", "print", "tie")
        assert list(folder.iterdir()) == []
        columns = open_columns(Path(name) / "packed")
        assert columns is not None
        assert (columns.fingerprint, columns.tie, columns.classes) == ("print", "tie", ("ant", "bee"))
        records = [row.record() for row in rows]
        mapped = Manifest(ManifestLess(), columns, columns.names)
        packed = Manifest(ManifestLess(), records, columns.names)
        assert list(mapped) == records
        assert mapped.class_counts() == packed.class_counts()
        columns_are_their_rows(mapped)
        columns_are_their_rows(mapped.select(range(len(rows) - 1, -1, -1)))
        columns_are_their_rows(mapped.select([row for row in range(len(rows)) if row % 3]))
        for index in range(len(rows)):
            for method in ("key", "label", "group", "split", "problem"):
                assert getattr(mapped, method)(index) == getattr(packed, method)(index)
        assert list(pickle.loads(pickle.dumps(mapped.select(range(0, len(rows), 2))))) == records[::2]
        writer = PackedWriter(folder, ())
        writer.finish(Path(name) / "packed", "other", "tie")
        with pytest.raises(SourceError, match="has changed since it was opened"):
            pickle.loads(pickle.dumps(mapped))


class ManifestLess:
    classes = ("ant", "bee")


@pytest.fixture
def frozen(tmp_path: Path) -> ManifestSource:
    """Two classes of three rows, of which one is a test row of a class of its own."""
    make(tmp_path / "data", *(f"train/{name}/{n}.jpg" for name in ("ant", "bee") for n in range(3)), "test/wasp/0.jpg")
    make(tmp_path / "data", "val/ant/0.jpg", "val/bee/0.jpg")
    pull(FolderSource(tmp_path / "data"), tmp_path / "out")
    return ManifestSource(tmp_path / "out")


def test_a_class_that_only_test_rows_have_is_not_learned(frozen: ManifestSource) -> None:
    assert frozen.classes == ("ant", "bee")
    assert frozen.manifest().classes == ("ant", "bee", "wasp")
    assert [record.label for record in frozen if record.split == "test"] == ["wasp"]
    train, val = split(frozen)
    assert (train.classes, len(train), len(val)) == (("ant", "bee"), 6, 2)
    assert [record.key for record in train] == [
        r.key for r in split(FolderSource(Path(frozen.path).parent / "data"))[0]
    ]


@pytest.mark.parametrize("damage", ["gone", "cut", "other", "empty", "foreign"])
def test_without_its_packed_form_it_is_read_from_parquet(frozen: ManifestSource, damage: str) -> None:
    rows, fingerprint, names = list(frozen), frozen.fingerprint, frozen.manifest().classes
    packed = Path(frozen.path) / "manifest.packed"
    content = packed.read_bytes()
    packed.unlink()
    changed = {"cut": content[:-8], "other": content.replace(b"tie", b"tye"), "empty": b"", "foreign": b"x" * 5000}
    if damage in changed:
        packed.write_bytes(changed[damage])
    again = ManifestSource(frozen.path)
    assert again._mapped is None
    assert list(again) == list(again.manifest()) == rows
    assert (again.fingerprint, again.classes, again.manifest().classes) == (fingerprint, frozen.classes, names)


def rewritten(source: ManifestSource, **columns: list[object]) -> ManifestSource:
    """The manifest with some of its columns replaced."""
    path = Path(source.path) / "manifest.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)
    return ManifestSource(source.path)


def test_a_manifest_that_was_changed_by_hand_has_another_fingerprint(frozen: ManifestSource) -> None:
    before, count = frozen.fingerprint, len(list(frozen))
    same = rewritten(frozen)
    assert same.fingerprint == before
    other = rewritten(frozen, labels=[["bee"]] * count)
    assert other.fingerprint != before
    assert {record.label for record in other} == {"bee"}


def test_hostile_locations_are_never_read(frozen: ManifestSource, tmp_path: Path) -> None:
    make(tmp_path / "outside", "secret.jpg")
    secret = hashlib.sha256(b"secret.jpg").hexdigest()
    count = len(list(frozen))
    paths = [path.replace("{root}", str(frozen.path)) for path in HOSTILE if "\ud800" not in path]
    assert len(paths) >= 40
    for start in range(0, len(paths), count):
        some = (paths[start : start + count] + ["x"] * count)[:count]
        source = rewritten(frozen, location=some, sha256=[secret] * count)
        for record in source:
            assert record.problem == "the manifest names another place than the hash of its bytes"
    for path in [*paths, f"files/../../outside/{secret}", location_of(secret), f"files/{secret[:2]}/../{secret}"]:
        for record in (Record("a", location=path), Record(path)):
            with pytest.raises(ImageError):
                frozen.read(record)


def test_bytes_that_have_changed_are_refused(frozen: ManifestSource, tmp_path: Path) -> None:
    changed, gone, linked, pipe = list(frozen)[:4]
    places = [Path(frozen.path) / str(record.location) for record in (changed, gone, linked, pipe)]
    places[0].write_bytes(b"other")
    for place in places[1:]:
        place.unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    places[2].symlink_to(tmp_path / "secret")
    os.mkfifo(places[3])
    for record, words in (
        (changed, "holds other bytes than were pulled; .* --refresh"),
        (gone, "No such file"),
        (linked, "leads out of the folder"),
        (pipe, "named pipe"),
    ):
        with pytest.raises(ImageError, match=words):
            frozen.read(record)
    source = FolderSource(tmp_path / "data")
    assert pull(source, frozen.path, refresh=True).failed == 0
    assert [frozen.read(record) for record in frozen] == [source.read(record) for record in source]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"file,label\na,b\n"])
def test_other_folders_are_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"holds no manifest\.parquet"):
        ManifestSource(tmp_path)
    (tmp_path / "manifest.parquet").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as a manifest"):
        list(ManifestSource(tmp_path))
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "manifest.parquet")
    with pytest.raises(SourceError, match=r"manifest\.parquet .* give parquet"):
        _ = ManifestSource(tmp_path).classes


def test_a_fresh_process_maps_the_same_file(frozen: ManifestSource) -> None:
    part = manifest_of(frozen).select([4, 2])
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[list[tuple[str, bytes]]] = context.Queue()
    process = context.Process(target=read_all, args=(part, queue))
    process.start()
    assert queue.get(timeout=50) == [(part.key(index), part.read(index)) for index in range(2)]
    process.join()
    assert len(pickle.dumps(part)) < 1000


def test_it_is_a_source_by_name(frozen: ManifestSource) -> None:
    assert va.sources.ManifestSource(frozen.path) == frozen
    assert (str(frozen), frozen.name, frozen.resolved()) == (frozen.path, "out", frozen)


HEADERS: list[dict[str, object]] = [
    {"rows": 10**12},
    {"rows": 10},
    {"rows": "9"},
    {"rows": 9.0},
    {"names": []},
    {"names": [1, 2, 3]},
    {"names": ["ant", "ant", "bee"]},
    {"classes": 99},
    {"classes": "2"},
    {"further": [5]},
    {"sections": 5},
    {"sections": {}},
]


def with_header(path: Path, **changes: object) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[8:16], "little")
    header = json.dumps({**json.loads(content[16 : 16 + size]), **changes}).encode()
    path.write_bytes(content[:8] + len(header).to_bytes(8, "little") + header + content[16 + len(header) :])


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_a_packed_form_with_a_header_that_lies_is_not_used(frozen: ManifestSource, changes: dict[str, object]) -> None:
    rows = list(frozen)
    with_header(Path(frozen.path) / "manifest.packed", **changes)
    again = ManifestSource(frozen.path)
    assert again._mapped is None
    assert list(again.manifest()) == rows


@pytest.mark.parametrize("byte", [0, 1, 255])
def test_packed_sections_of_any_content_lead_nowhere_else(frozen: ManifestSource, byte: int) -> None:
    path = Path(frozen.path) / "manifest.packed"
    content = path.read_bytes()
    sections = json.loads(content[16 : 16 + int.from_bytes(content[8:16], "little")])["sections"]
    for name, (_, offset, size) in sections.items():
        path.write_bytes(content[:offset] + bytes([byte]) * size + content[offset + size :])
        manifest = ManifestSource(frozen.path).manifest()
        assert len([(record, record.columns) for record in manifest]) == 9, name
        for values in (manifest.each_labels(), manifest.each_group(), manifest.each_split(), manifest.each_problem()):
            assert len(list(values)) == 9, name


def test_a_packed_form_that_is_a_pipe_is_never_waited_for(frozen: ManifestSource) -> None:
    rows, path = list(frozen), Path(frozen.path) / "manifest.packed"
    path.unlink()
    os.mkfifo(path)
    assert list(ManifestSource(frozen.path).manifest()) == rows


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("key", pa.nulls(9, pa.string())),
        ("labels", pa.array(["ant"] * 9)),
        ("labels", pa.array([["ant", None]] * 9)),
        ("columns", pa.array([5] * 9)),
        ("columns", pa.array([[("age", None)]] * 9, pa.map_(pa.string(), pa.string()))),
        ("sha256", pa.array([b"\xff"] * 9)),
        ("fetched_at", pa.array(["today"] * 9)),
        ("size", pa.array(["large"] * 9)),
    ],
)
def test_columns_of_another_kind_are_reported_in_one_line(
    frozen: ManifestSource, column: str, values: pa.Array
) -> None:
    path = Path(frozen.path) / "manifest.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), path)
    with pytest.raises(SourceError, match="cannot be read as a manifest") as raised:
        ManifestSource(frozen.path).manifest()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("classes", ['"ab"', "[1, 2]", '["a", "a"]', "[null]", "[" * 5000], ids=lambda text: text[:9])
def test_invalid_facts_are_reported_in_one_line(frozen: ManifestSource, classes: str) -> None:
    path = Path(frozen.path) / "manifest.parquet"
    facts = f'{{"classes": {classes}, "fingerprint": "", "shares": null}}'
    pq.write_table(pq.read_table(path).replace_schema_metadata({"visionadapt": facts}), path)
    with pytest.raises(SourceError, match="was not written by visionadapt pull"):
        _ = ManifestSource(frozen.path).classes


def test_a_packed_form_is_compared_with_its_checksums_once(
    frozen: ManifestSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, compared = Path(frozen.path) / "manifest.packed", []
    are_intact = packed._are_intact
    monkeypatch.setattr(packed, "_are_intact", lambda *parts: compared.append(1) or are_intact(*parts))
    assert open_columns(path) is not None
    assert not compared, "pull has written it just now"
    copy = shutil.copy2(path, tmp_path / "manifest.packed")
    for _ in range(2):
        assert open_columns(copy) is not None
        assert len(compared) == 1
    data, times = bytearray(copy.read_bytes()), copy.stat()
    data[-1] ^= 1
    copy.write_bytes(data)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_columns(copy) is None
