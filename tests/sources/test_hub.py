"""Data sets on the Hugging Face hub are downloaded once, and read as the same files on disk are."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants, snapshot_download

from visionadapt.core.records import Source
from visionadapt.errors import SourceError
from visionadapt.pull.pull import pull
from visionadapt.runs import trust
from visionadapt.sources import FileSource, FolderSource, ManifestSource, ShardSource, TableSource
from visionadapt.sources.hub import address_of, hub_address
from visionadapt.sources.opening import open_images, open_source
from visionadapt.sources.walk import LEAVES, link_problem, walk

from ..conftest import SMALL_BACKBONE
from ..export.hub_server import COMMIT, Hub, hub_in_use

Run = Callable[..., tuple[int, str]]
NAME = "someone/hats"
ADDRESS = f"hf://datasets/{NAME}"
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --epochs 1 --precision float32 --workers 0".split()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_in_use(tmp_path / "cache", monkeypatch) as running:
        yield running


@pytest.fixture
def photos(tinted_folder: Callable[..., Path]) -> Path:
    root = tinted_folder(count=6)
    (root / "README.md").write_text("hats")
    return root


def given(hub: Hub, root: Path, repository: str = f"datasets/{NAME}") -> None:
    """Put a folder into a repository, with the files that are on the hub in any case."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    code = b"raise SystemExit"
    hub.files[repository] = {**files, ".gitattributes": b"", "README.md": b"hats", "hats.py": code}
    hub.files.setdefault(repository.partition("@")[0], {})


def rows(source: Source) -> list[object]:
    return [(each.key, each.labels, each.split, each.problem, source.read(each)) for each in source]


def told(text: str) -> str:
    """The error of opening a text: one line."""
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def table_of(root: Path, count: int = 6) -> pa.Table:
    images = sorted(root.rglob("*.png"))[:count]
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in images]
    return pa.table({"image": cells, "label": [path.parent.name for path in images]})


@pytest.fixture
def parquet(photos: Path, tmp_path: Path) -> Path:
    """A repository of Parquet files, as the hub's own tools write it."""
    root = tmp_path / "parquet"
    (root / "data").mkdir(parents=True)
    table = table_of(photos, 12)
    for number, part in enumerate((table[:6], table[6:])):
        pq.write_table(part, root / "data" / f"train-{number:05}-of-00002.parquet")
    return root


def test_a_folder_has_the_rows_and_the_name_of_the_data_set(hub: Hub, photos: Path) -> None:
    given(hub, photos)
    source, local = open_source(ADDRESS), open_source(str(photos))
    assert isinstance(source, FolderSource) and source.name == "hats"
    assert rows(source) == rows(local) and source.classes == ("blood", "grass")
    assert source.notes() == FolderSource(photos).notes()
    assert rows(pickle.loads(pickle.dumps(source))) == rows(local)
    below = FolderSource(f"{ADDRESS}/blood", labelled=False)
    assert rows(below) == rows(FolderSource(photos / "blood", labelled=False)) and below.name == "hats"
    assert len(list(open_images(f"{ADDRESS}/grass"))) == 6
    assert address_of(source.root) == f"{ADDRESS}@{COMMIT}"


def test_only_what_is_asked_for_is_downloaded_and_no_code(hub: Hub, photos: Path, tmp_path: Path) -> None:
    given(hub, photos)
    FolderSource(f"{ADDRESS}/blood", labelled=False)
    taken = [path for path in hub.requests if "/resolve/" in path]
    assert taken and all("/blood/" in path for path in taken)
    open_source(ADDRESS)
    assert not any(".py" in path for path in hub.requests) and not list((tmp_path / "cache").rglob("*.py"))


def test_what_is_cached_is_not_downloaded_again_and_opens_offline(
    hub: Hub, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(hub, photos)
    snapshot_download(NAME, repo_type="dataset", endpoint=hub.url)
    hub.requests.clear()
    found = rows(open_source(ADDRESS))
    assert not any("/resolve/" in path for path in hub.requests)
    hub.requests.clear()
    assert rows(open_source(f"{ADDRESS}@{COMMIT}")) == found and hub.requests == []
    offline(monkeypatch)
    assert rows(open_source(ADDRESS)) == found
    assert "not in the cache" in told("hf://datasets/someone/other") and "HF_HUB_OFFLINE" in told(f"{ADDRESS}@dev")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert rows(open_source(ADDRESS)) == found
    assert "does not answer" in told("hf://datasets/someone/other")


def test_a_part_of_a_data_set_is_no_data_set_offline(hub: Hub, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(hub, photos)
    FolderSource(f"{ADDRESS}/blood", labelled=False)
    offline(monkeypatch)
    assert len(FolderSource(f"{ADDRESS}/blood", labelled=False)) == 6
    assert re.search(r"7 of 13 files are not in the hub's cache", told(ADDRESS))


def test_a_revision_is_a_branch_or_a_commit(hub: Hub, photos: Path, tinted_folder: Callable[..., Path]) -> None:
    given(hub, photos)
    given(hub, tinted_folder("more", classes=("sea", "snow")), f"datasets/{NAME}@dev")
    hub.commits["dev"] = "d" * 40
    hub.commits["refs/convert/parquet"] = "e" * 40
    given(hub, photos / "blood", f"datasets/{NAME}@refs/convert/parquet")
    assert open_source(f"{ADDRESS}@dev").classes == ("sea", "snow")
    assert open_source(f"{ADDRESS}@{'d' * 40}/").classes == ("sea", "snow")
    assert open_source(ADDRESS).classes == ("blood", "grass")
    for spelled in ("refs/convert/parquet", "refs%2Fconvert%2Fparquet"):
        assert len(list(FolderSource(f"{ADDRESS}@{spelled}", labelled=False))) == 7
    assert "@gone is not there" in told(f"{ADDRESS}@gone")


def test_what_is_wrong_is_told_in_one_line(hub: Hub, photos: Path) -> None:
    given(hub, photos)
    assert "hf auth login" in told("hf://datasets/someone/gone")
    assert told(f"hf://{NAME}") == f"hf://{NAME} names no data set; write {ADDRESS}"
    for wrong in ("hf://", "hf://datasets/hats", "hf://spaces/a/b", "hf://models/a/b"):
        assert "hf://datasets/ORG/NAME" in told(wrong)
    for wrong in ("/../x", "/a//b", "@../../x", "@a%2F..%2Fb", "/a\\b"):
        with pytest.raises(SourceError):
            hub_address(ADDRESS + wrong)
    assert "no such file or folder" in told(f"{ADDRESS}/gone")
    assert "is a file" in told(f"{ADDRESS}/blood/0.png")
    assert "hf://datasets/" in told(f"csv(hf://{NAME}/labels.csv, image=file)")
    assert f"{ADDRESS}/metadata.csv" in told(f"csv({ADDRESS}, image=file)")
    with pytest.raises(SourceError, match="is a file"):
        FolderSource(f"{ADDRESS}/README.md")


def test_a_table_is_told_before_what_lies_beside_it_is_downloaded(hub: Hub, parquet: Path) -> None:
    (parquet / "LICENSE").write_text("CC0")
    given(hub, parquet)
    assert "parquet(" in told(ADDRESS)
    assert not any("LICENSE" in each for each in hub.requests)


def test_a_repository_without_images_is_told_before_a_download(hub: Hub, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "README.md").write_text("nothing else yet")
    (notes / "prices.json").write_text("{}")
    given(hub, notes)
    assert "no images" in told(ADDRESS) and "prices.json" in told(ADDRESS)
    assert not any("prices.json" in each for each in hub.requests)


def test_a_page_of_the_hub_is_answered_with_the_address(hub: Hub) -> None:
    for page in (f"https://huggingface.co/datasets/{NAME}", f"https://huggingface.co/datasets/{NAME}/tree/main"):
        assert told(page).endswith(f"give --data hf://datasets/{NAME}")
    assert not hub.requests


def test_parquet_files_are_told_by_their_address(hub: Hub, parquet: Path) -> None:
    given(hub, parquet)
    line = told(ADDRESS)
    text = f"parquet({ADDRESS}, image=image, label=label, split=split)"
    assert line == f'{ADDRESS} holds a table: give --data "{text}" (columns: image.path, label, split, image)'
    assert sum("/resolve/" in each and each.startswith("GET") for each in hub.requests) == 1
    source, local = open_source(text), open_source(text.replace(ADDRESS, str(parquet)))
    assert isinstance(source, TableSource) and source.name == "hats"
    assert rows(source) == rows(local) and len(rows(source)) == 12
    assert f"parquet({ADDRESS}/data, " in told(f"{ADDRESS}/data")
    one = f"{ADDRESS}/data/train-00000-of-00002.parquet"
    assert f"parquet({one}, " in told(one)


def test_a_pattern_downloads_its_own_files_alone(hub: Hub, parquet: Path) -> None:
    given(hub, parquet)
    hub.files[f"datasets/{NAME}"]["data/train-other/a.parquet"] = b"?"
    source = TableSource(f"{ADDRESS}/data/train-00000*.parquet", "image", "label")
    assert len(source) == 6
    assert {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path} == {"train-00000-of-00002.parquet"}
    assert f"parquet({ADDRESS}/data/train-*.parquet, " in told(f"{ADDRESS}/data/train-*.parquet")
    assert len(TableSource(f"{ADDRESS}/data/train-*.parquet", "image", "label")) == 12
    assert "no such file" in told(f"parquet({ADDRESS}/data/val-*.parquet, image=image)")


def test_a_table_finds_the_images_of_its_folder(hub: Hub, photos: Path) -> None:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    (photos / "metadata.csv").write_text("file,kind\n" + "".join(f"{name},{name[:5]}\n" for name in names))
    pq.write_table(pa.table({"file": names, "kind": [name[:5] for name in names]}), photos / "rows.parquet")
    given(hub, photos)
    for table in ("csv({}/metadata.csv, image=file, label=kind)", "parquet({}/rows.parquet, image=file, label=kind)"):
        found = rows(open_source(table.format(ADDRESS)))
        assert found == rows(open_source(table.format(photos))) and len(found) == 12
    (photos / "elsewhere.csv").write_text("file,kind\n0.png,red\n")
    source = TableSource(photos / "elsewhere.csv", "file", "kind", root=f"{ADDRESS}/blood")
    assert [problem for *_, problem, _ in rows(source)] == [None]


def test_archives_are_read_where_they_are(hub: Hub, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    for place in ("train/a-000.tar", "train/a-001.tar", "test/a-000.tar"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / place, "w") as archive:
            archive.add(photos, arcname=".")
    given(hub, root)
    both = f"shards([{ADDRESS}/test, {ADDRESS}/train])"
    assert both.partition("(")[2] in told(ADDRESS)
    source = open_source(both)
    assert isinstance(source, ShardSource) and source.name == "hats"
    assert rows(source) == rows(open_source(f"shards([{root}/test, {root}/train])"))
    hub.files[f"datasets/{NAME}"] = {
        name.removeprefix("train/"): content for name, content in hub.files[f"datasets/{NAME}"].items()
    }
    hub.commits["main"] = "a" * 40
    del hub.files[f"datasets/{NAME}"]["test/a-000.tar"]
    found = rows(open_source(str(root / "train")))
    assert rows(open_source(ADDRESS)) == found
    assert rows(open_source(f"{ADDRESS}/a-{{000..001}}.tar")) == found
    assert rows(open_source(f"{ADDRESS}/a-*.tar")) == found
    hub.files[f"datasets/{NAME}"] = {"a.tar.gz": b"?"}
    hub.commits["main"] = "b" * 40
    assert "compressed" in told(ADDRESS) and "compressed" in told(f"{ADDRESS}/a.tar.gz")


def test_links_lead_to_blobs_of_the_same_repository_alone(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--a--b"
    root, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    (root / "mug").mkdir(parents=True)
    blobs.mkdir()
    other = tmp_path / "datasets--a--c" / "blobs"
    other.mkdir(parents=True)
    for folder, name in ((blobs, "a" * 64), (blobs, "notes"), (other, "b" * 40), (tmp_path, "c" * 40)):
        (folder / name).write_bytes(b"image")
    (blobs / ("d" * 40)).symlink_to(tmp_path / ("c" * 40))
    (blobs / ("e" * 40)).mkdir()
    (blobs / ("e" * 40) / "1.png").write_bytes(b"image")
    targets = {
        "good.png": blobs / ("a" * 64),
        "notes.png": blobs / "notes",
        "other.png": other / ("b" * 40),
        "outside.png": tmp_path / ("c" * 40),
        "through.png": blobs / ("d" * 40),
        "up": repository,
        "folder": blobs / ("e" * 40),
    }
    for name, target in targets.items():
        (root / "mug" / name).symlink_to(target)
    problems = {found.location: found.problem for found in walk(root)}
    assert problems.pop("mug/good.png") is None and set(problems.values()) == {LEAVES}
    assert link_problem(root / "mug", "good.png") is None
    assert [record.problem for record in FolderSource(root) if record.problem is None] == [None]
    with pytest.raises(SourceError, match="follow_links"):
        (root / "linked").symlink_to(blobs)
        _ = FolderSource(root).classes
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "1.png").symlink_to(blobs / ("a" * 64))
    assert [found.problem for found in walk(tmp_path / "plain")] == [LEAVES]


def test_a_stored_address_needs_the_users_word() -> None:
    for text in ("{}", "folder({})", "parquet({}/a.parquet, image=a)", "shards([x.tar, {}])"):
        assert trust.wants("data", text.format(ADDRESS))[0].startswith("download hf://")
    assert trust.wants("data", f"csv(a.csv, image=b, root={ADDRESS})") == [f"download {ADDRESS}"]


@pytest.mark.slow
def test_a_run_on_a_data_set_resumes_without_the_hub(
    hub: Hub, photos: Path, visionadapt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(hub, photos)
    monkeypatch.chdir(tmp_path)
    code, output = visionadapt("train", "--data", ADDRESS, "--adapter", "none", *SMALL)
    assert code == 0 and "downloading 13 files" in output and f"data: {ADDRESS}@{COMMIT}, 12 images" in output, output
    run = tmp_path / "runs" / "hats-1"
    config = json.loads((run / "config.json").read_text())
    assert f"datasets--someone--hats/snapshots/{COMMIT}" in config["options"]["data"]
    local = tmp_path / "local"
    assert visionadapt("train", "--data", photos, "--adapter", "none", "--out", local, *SMALL)[0] == 0
    kept, other = (pq.read_table(each / "ledger.parquet").drop_columns("version") for each in (run, local))
    assert kept.equals(other)
    hub.requests.clear()
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 0 and hub.requests == [], output
    config["options"]["data"] = ADDRESS
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 2 and f"download {ADDRESS}" in output and hub.requests == []
    _, output = visionadapt("train", "--resume", run, "--data", ADDRESS)
    assert "12 images of 2 classes" in output and hub.requests


@pytest.mark.slow
def test_commands_take_addresses(hub: Hub, photos: Path, visionadapt: Run, tmp_path: Path) -> None:
    given(hub, photos)
    out = tmp_path / "run"
    assert visionadapt("train", "--data", photos, "--adapter", "none", "--out", out, *SMALL)[0] == 0
    code, output = visionadapt("predict", out, f"{ADDRESS}/grass")
    assert code == 0 and output.count("grass") >= 6 and "0.png" in output
    assert visionadapt("evaluate", out, "--data", ADDRESS, "--out", tmp_path / "evaluated")[0] == 0
    features = tmp_path / "features.npz"
    code, output = visionadapt("embed", ADDRESS, "--run", out, "--out", features, "--cache", tmp_path / "kept")
    assert code == 0 and "12 vectors" in output
    code, output = visionadapt("train", "--data", f"hf://{NAME}", "--out", tmp_path / "second")
    assert code == 2 and output.count("\n") == 1 and ADDRESS in output


def test_a_pulled_manifest_is_read_from_the_hub(hub: Hub, photos: Path, tmp_path: Path) -> None:
    pull(FolderSource(photos), tmp_path / "frozen")
    given(hub, tmp_path / "frozen")
    source, local = open_source(f"manifest({ADDRESS})"), open_source(f"manifest({tmp_path / 'frozen'})")
    assert isinstance(source, ManifestSource) and source.name == "hats"
    assert rows(source) == rows(local) and len(rows(source)) == 12
    with pytest.raises(SourceError, match="labelled=false"):
        FileSource([ADDRESS, str(photos)])


def test_bytes_of_an_image_are_those_of_the_repository(hub: Hub) -> None:
    image = io.BytesIO()
    image.write(b"not an image")
    hub.files[f"datasets/{NAME}"] = {"mug/1.png": image.getvalue(), "cup/[1].png": b"1", "cup/[2] a.png": b"2"}
    assert [each[-1] for each in rows(open_source(ADDRESS))] == [b"1", b"2", b"not an image"]
