"""The scan of the files in parts: an audit of them finds what one process finds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import read_table, write_table

from visionadapt.auditing import scan_shard, shard_scan
from visionadapt.core.sharding import Shard, part_in
from visionadapt.errors import RunError
from visionadapt.prediction.shards import first_proof, write_proof
from visionadapt.sources import FolderSource
from visionadapt.sources.opening import manifest_of

from .scenes import OPTIONS, SMALL, audited, clean_folder

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images with a leak, a broken file, a blank one and one of 16 bits."""
    folder = clean_folder(tmp_path / "data", count=8)
    shutil.copy(folder / "train/red/3.png", folder / "val/red/copy.png")
    (folder / "train/red/broken.png").write_bytes(b"no image")
    Image.new("RGB", (80, 80), "white").save(folder / "train/blue/blank.png")
    deep = np.linspace(0, 4000, 90 * 90).reshape(90, 90).astype(np.uint16)
    Image.fromarray(deep).save(folder / "train/blue/deep.tif")
    return folder


def scanned(folder: Path, parts: int, out: Path) -> Path:
    for number in range(1, parts + 1):
        scan_shard(FolderSource(folder), f"{number}/{parts}", out, workers=0, **SMALL)
    return out


@pytest.mark.parametrize("parts", [1, 3, 90])
def test_an_audit_of_scanned_parts_is_that_of_one_process(folder: Path, tmp_path: Path, parts: int) -> None:
    whole = audited(folder, workers=0)
    ours = audited(folder, workers=0, scanned=scanned(folder, parts, tmp_path / "scans"))
    assert ours.files == whole.files
    for item in dataclasses.fields(whole):
        if item.name not in {"manifest", "files"}:
            assert getattr(ours, item.name) == getattr(whole, item.name), item.name
    assert {"leak", "unreadable", "blank"} <= set(ours.counts)
    assert ours.decode.sample_range is not None


def test_a_finished_part_is_kept_and_a_stopped_one_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = shard_scan.scan
    monkeypatch.setattr(shard_scan, "scan", lambda *_: (_ for _ in [1 / 0]))
    with pytest.raises(ZeroDivisionError):
        scanned(folder, 1, tmp_path / "scans")
    assert not list((tmp_path / "scans").glob("*.parquet"))
    monkeypatch.setattr(shard_scan, "scan", inspect)
    first = scan_shard(FolderSource(folder), "1/1", tmp_path / "scans", workers=0, **SMALL)
    assert (first.rows, first.rejected) == (36, 1)
    monkeypatch.setattr(shard_scan, "scan", lambda *_: pytest.fail("files are read again"))
    assert scan_shard(FolderSource(folder), "1/1", tmp_path / "scans", workers=0, **SMALL) == first


def test_parts_that_do_not_belong_to_the_audit_are_refused(folder: Path, tmp_path: Path) -> None:
    scans = scanned(folder, 3, tmp_path / "scans")
    with pytest.raises(RunError, match="were read with another --sample-range, --bands, --exclude or version"):
        audited(folder, workers=0, scanned=scans, sample_range="0,100")
    (folder / "train/red/new.png").write_bytes((folder / "train/red/1.png").read_bytes())
    with pytest.raises(RunError, match="holds the scan of other rows than the source has now"):
        audited(folder, workers=0, scanned=scans)
    (folder / "train/red/new.png").unlink()
    (scans / "scan-00002-of-00003.parquet").unlink()
    with pytest.raises(RunError, match="1 of 3 shards are missing; compute --shard 2/3"):
        audited(folder, workers=0, scanned=scans)


def test_the_command_scans_parts_and_audits_them(
    visionadapt: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        code, output = visionadapt("audit", folder, "--shard", f"{number}/2", "--scanned", "scans", *OPTIONS)
        assert code == 0, output
        assert f"scans/scan-0000{number}-of-00002.parquet" in output
    assert not Path("audits").exists()
    code, output = visionadapt("audit", folder, "--scanned", "scans", "--out", "ours", *OPTIONS)
    assert code == 0, output
    assert visionadapt("audit", folder, "--out", "whole", *OPTIONS)[0] == 0
    ours, whole = (read_table(f"{name}/findings.parquet") for name in ("ours", "whole"))
    assert ours.equals(whole)
    edits = tmp_path / "edits.csv"
    edits.write_text("file,action\ntrain/red/1.png,drop\n")
    code, output = visionadapt("audit", folder, "--scanned", "scans", "--exclude", edits, "--quiet", *OPTIONS)
    assert (code, output.count("\n")) == (2, 1), output
    assert "--exclude" in output


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--shard", "1/2"), "--shard 1/2 needs --scanned"),
        (("--shard", "3/2", "--scanned", "scans"), "--shard 3/2 must be such as 3/16"),
        (("--shard", "1/2", "--scanned", "scans", "--strict"), "--strict cannot go with --shard 1/2"),
        (("--shard", "1/2", "--scanned", "scans", "--out", "out"), "--out cannot go with --shard 1/2"),
        (("--shard", "1/2", "--scanned", "scans", "--against", "data"), "--against cannot go with --shard 1/2"),
        (("--shard", "1/2", "--scanned", "data/scans"), "--scanned"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    visionadapt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(folder.parent)
    code, output = visionadapt("audit", "data", *given, "--quiet", *OPTIONS)
    assert (code, output.count("\n")) == (2, 1), output
    assert told in output


def test_a_file_that_has_changed_since_its_scan_is_named(folder: Path, tmp_path: Path) -> None:
    scans = scanned(folder, 2, tmp_path / "scans")
    shutil.copy(folder / "train/red/1.png", folder / "train/red/broken.png")
    with pytest.raises(RunError, match=r"broken\.png.* has changed since it was scanned"):
        audited(folder, workers=0, scanned=scans)


@pytest.mark.parametrize(
    ("column", "value"),
    [("hash", b"short"), ("luma", None), ("height", 0), ("height", None), ("sha256", None), ("file", "other.png")],
)
def test_an_edited_scan_is_refused(folder: Path, tmp_path: Path, column: str, value: object) -> None:
    scans = scanned(folder, 1, tmp_path / "scans")
    part = part_in(manifest_of(FolderSource(folder)), Shard(1, 1))
    proof = first_proof(scans / "scan.parquet")
    table = read_table(scans / "scan-00001-of-00001.parquet")
    place = table.column_names.index(column)
    cells = table[column].to_pylist()
    cells[3] = value
    edited = table.set_column(place, table.schema.field(column), pa.array(cells, table.schema.field(column).type))
    write_table(edited, scans / "scan-00001-of-00001.parquet")
    write_proof(scans / "scan-00001-of-00001.parquet", part, proof.model, proof.rejected)
    with pytest.raises(RunError, match=r"scan\.parquet cannot be read"):
        audited(folder, workers=0, scanned=scans)
