"""Commands on object storage: the results of the folder, no second reading, and one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save as safetensors_bytes

from visionadapt.backbones.creation import create
from visionadapt.prediction import bulk
from visionadapt.prediction.embedding import read_embedding
from visionadapt.pull.pull import pull
from visionadapt.sources import BucketSource, FolderSource
from visionadapt.sources.objects.copies import object_version
from visionadapt.sources.opening import open_source
from visionadapt.system.storage import file_sha256

from ..conftest import SMALL_BACKBONE
from .object_storage import BUCKET, Store, busy, cut, error, sometimes

Run = Callable[..., tuple[int, str]]
Make = Callable[..., Path]
ROOT = f"s3://{BUCKET}/set"
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --adapter none --precision float32".split()


def as_jpegs(folder: Path) -> Path:
    """Convert the images of a folder: those of 8 bits by their suffix need not be read to find out."""
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    return folder


@pytest.mark.slow
def test_training_from_a_bucket_is_training_from_the_folder(
    store: Store, visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    folder = as_jpegs(tinted_folder(count=30))
    store.put_folder(folder, "set")
    store.fault = sometimes(0.1, 2, busy, cut(store))
    runs = [tmp_path / name for name in ("bucket", "local", "again")]
    for run, data in zip(runs, (ROOT, str(folder), ROOT), strict=True):
        del store.site.requests[:]
        options = ["--cache", str(tmp_path / ("disk" if data != ROOT else "cache"))]
        code, output = visionadapt("train", "--data", data, "--out", run, *options, *SMALL)
        assert code == 0, output
    assert file_sha256(runs[0] / "model.safetensors") == file_sha256(runs[1] / "model.safetensors")
    assert file_sha256(runs[0] / "model.safetensors") == file_sha256(runs[2] / "model.safetensors")
    rows = json.loads((runs[2] / "config.json").read_text())
    assert rows["options"]["data"] == f"bucket({ROOT})"
    assert len(store.gets()) < 40, "one image of each class and the examples in the report, but not all 60"
    for run in runs[:1]:
        texts = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
        assert b"AKIASECRETKEY" not in texts
        assert b"very-secret-word" not in texts
    code, output = visionadapt("train", "--resume", runs[0])
    assert code == 2
    assert "would contact s3://photos/set" in output


def test_a_pulled_bucket_has_the_fingerprint_of_the_pulled_folder(
    store: Store, tinted_folder: Make, tmp_path: Path
) -> None:
    folder = tinted_folder(count=5)
    store.put_folder(folder, "set")
    store.fault = sometimes(0.1, 4, busy, cut(store))
    found = [
        pull(each, tmp_path / f"{number}") for number, each in enumerate((BucketSource(ROOT), FolderSource(folder)))
    ]
    assert found[0].fingerprint == found[1].fingerprint
    assert pull(BucketSource(ROOT), tmp_path / "0").fetched == 0


def test_archives_of_a_pull_go_into_a_bucket(
    store: Store, visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    folder, url = tinted_folder(count=5), f"s3://{BUCKET}/shards"
    store.fault = sometimes(0.1, 4, busy)
    pulling = ["pull", folder, "--out", tmp_path / "frozen", "--shards-out", url]
    assert "--shards-out needs --shards" in visionadapt(*pulling)[1]
    code, output = visionadapt(*pulling, "--shards", "60KB")
    assert code == 0, output
    source, local = open_source(f"shards({url})"), FolderSource(folder)
    assert [(row.key, row.label) for row in source] == [(row.key, row.label) for row in local]
    assert [source.read(row) for row in source] == [local.read(row) for row in local]
    store.fault = error("AccessDenied", 403)
    code, output = visionadapt(*pulling, "--shards", "60KB")
    assert code == 2
    assert "access is denied" in output


@pytest.mark.slow
def test_predict_and_embed_take_a_bucket(store: Store, visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    store.put_folder(tinted_folder(count=2), "set")
    out = tmp_path / "features.npz"
    code, output = visionadapt("embed", ROOT, "--backbone", SMALL_BACKBONE, "--weights", "none", "--out", out)
    assert code == 0, output
    assert "4 vectors" in output


def test_expired_credentials_are_one_line(store: Store, visionadapt: Run) -> None:
    store.fault = error("ExpiredToken", 400)
    code, output = visionadapt("train", "--data", ROOT, "--out", "run", *SMALL)
    assert code == 2
    assert output == f"error: s3://{BUCKET}: the credentials have expired; renew them, and repeat the command\n"


@pytest.mark.slow
def test_what_commands_write_may_lie_in_a_bucket(
    store: Store, visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tinted_folder(count=4), f"s3://{BUCKET}/out/table.parquet"
    weights = create(SMALL_BACKBONE, 64, pretrained=False, seed=5).state_dict()
    store.put("w.safetensors", safetensors_bytes({name: each.contiguous() for name, each in weights.items()}))
    remote = ["--weights", f"s3://{BUCKET}/w.safetensors"]
    small = f"--backbone {SMALL_BACKBONE} --image-size 64 --adapter none --precision float32".split()
    code, output = visionadapt("train", "--data", folder, "--out", tmp_path / "run", *small, *remote)
    assert code == 0, output
    predict = ["predict", tmp_path / "run", folder, *remote, "--out"]
    code, output = visionadapt("predict", tmp_path / "run", folder)
    assert code == 2
    assert f"give --weights s3://{BUCKET}/w.safetensors" in output
    assert visionadapt(*predict, tmp_path / "whole.parquet")[0] == 0
    store.fault = sometimes(0.1, 3, busy)
    code, output = visionadapt(*predict, out)
    assert code == 0, output
    whole = parquet.read_table(tmp_path / "whole.parquet")
    assert parquet.read_table(object_version(out).here()).equals(whole)
    assert "already exists" in visionadapt(*predict, out)[1]
    assert visionadapt(*predict, out, "--overwrite")[0] == 0

    parts = f"s3://{BUCKET}/out/parts.parquet"
    append = bulk._append

    def stopped(*arguments: Any) -> None:
        append(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "_append", stopped)
    assert visionadapt(*predict, parts, "--shard", "1/2")[0] == 130
    monkeypatch.setattr(bulk, "_append", append)
    assert "before the interruption" in visionadapt(*predict, parts, "--shard", "1/2")[1]
    assert "before the interruption" in visionadapt(*predict, parts, "--shard", "1/2")[1], "it is in the bucket"
    assert "--shard 2/2" in visionadapt("merge", parts)[1]
    assert visionadapt(*predict, parts, "--shard", "2/2")[0] == 0
    code, output = visionadapt("merge", parts)
    assert code == 0, output
    merged = parquet.read_table(object_version(parts).here())
    assert merged["file"].equals(whole["file"])
    assert "already exists" in visionadapt("merge", parts)[1]
    features = ["embed", folder, "--run", tmp_path / "run", *remote, "--out"]
    assert visionadapt(*features, f"s3://{BUCKET}/out/features.npz")[0] == 0
    assert visionadapt(*features, tmp_path / "features.npz")[0] == 0
    ours, theirs = (
        read_embedding(path)
        for path in (tmp_path / "features.npz", object_version(f"s3://{BUCKET}/out/features.npz").here())
    )
    assert ours.keys == theirs.keys
    assert (ours.vectors == theirs.vectors).all()
    store.fault = error("AccessDenied", 403)
    code, output = visionadapt(*predict, f"s3://{BUCKET}/out/other.parquet")
    assert (code, output.count("\n")) == (2, 1)
    assert "access is denied" in output
