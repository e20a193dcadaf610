"""The features of a run's images, cached in parts: the training finds all of them and ends with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionadapt.frozen.features import _Pass
from visionadapt.system import distributed

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --precision float32 --epochs 2".split()
ADAPTED = ("--adapter", "bottleneck(rank=4, blocks=last:2)")
CASES = {
    "head": ("--adapter", "none"),
    "views": (*ADAPTED, "--augment", "light", "--views", "2"),
    "pixels": (*ADAPTED, "--keep", "pixels"),
}


def events(output: str, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [facts for facts in found if facts["event"] == name]


def images(tinted_folder: Make) -> Path:
    """Sixteen usable images and three that are not."""
    data = tinted_folder(count=8)
    for name in ("a", "b", "c"):
        (data / "grass" / f"broken {name}.png").write_bytes(b"no image at all")
    return data


@pytest.mark.parametrize(("case", "parts"), [("head", 3), ("views", 20), ("pixels", 3)])
def test_the_training_finds_what_all_parts_have_cached(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, parts: int
) -> None:
    data = images(tinted_folder)
    options = (*SMALL, *CASES[case], "--data", data, "--cache")
    assert visionadapt("train", *options, tmp_path / "other", "--out", tmp_path / "whole")[0] == 0
    told = []
    for number in range(1, parts + 1):
        given = ("--shard", f"{number}/{parts}", "--out", tmp_path / "parts", "--json")
        code, output = visionadapt("train", *options, tmp_path / "cache", *given)
        assert code == 0, output
        assert "train without --shard when all parts are done" in output
        told += events(output, "shard")
        assert not (tmp_path / "parts").exists()
    assert [facts["images"] for facts in told] == [19] * parts
    assert (sum(facts["cached"] for facts in told), sum(facts["rejected"] for facts in told)) == (16, 3)
    assert min(facts["cached"] for facts in told) == (0 if parts > 19 else 4)

    monkeypatch.setattr(_Pass, "_slot", lambda *_: pytest.fail("an image is computed"))
    code, output = visionadapt("train", *options, tmp_path / "cache", "--out", tmp_path / "parts")
    assert code == 0, output
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["prefix_forwards"] == 0
    for name in ("model.safetensors", "classes.json", "rejected.csv"):
        whole, ours = ((tmp_path / run / name).read_bytes() for run in ("whole", "parts"))
        assert ours == whole, name


def test_an_interrupted_part_goes_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tinted_folder(count=40)
    options = (*SMALL, "--adapter", "none", "--data", data, "--shard", "1/1", "--json")
    flush = _Pass._flush

    def stopped(self: _Pass) -> None:
        flush(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Pass, "_flush", stopped)
    code, output = visionadapt("train", *options)
    assert code == 130
    assert "stopped; the features so far are cached" in output
    assert "--resume" not in output
    monkeypatch.setattr(_Pass, "_flush", flush)
    (facts,) = events(visionadapt("train", *options)[1], "shard")
    assert (facts["cached"], facts["computed"]) == (80, 80 - 32)
    (facts,) = events(visionadapt("train", *options)[1], "shard")
    assert (facts["cached"], facts["computed"]) == (80, 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--folds", "3"), "--folds cannot go with --shard 1/2"),
        (("--minutes", "3"), "--minutes cannot go with --shard 1/2"),
        (("--plan",), "--plan cannot go with --shard 1/2"),
        (("--keep", "nothing"), "--keep nothing cannot go with --shard 1/2"),
        (("--augment", "module:name"), "cached in the run folder, cannot go with --shard 1/2"),
        (("--resume", "runs/first"), "--resume cannot go with --shard 1/2"),
        (("--cache-limit", "1KB"), "--shard 1/2: the features of all images do not fit into the cache"),
        (("--shard", "3/2"), "--shard 3/2 must be such as 3/16"),
        (("--shard", "0/2"), "--shard 0/2 must be such as 3/16"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, given: tuple[str, ...], told: str
) -> None:
    data = () if "--resume" in given else ("--data", tinted_folder())
    shard = () if "--shard" in given else ("--shard", "1/2")
    code, output = visionadapt("train", *data, *SMALL, *shard, *given, "--quiet")
    assert (code, output.count("\n")) == (2, 1), output
    assert told in output


def test_torchrun_and_compare_are_refused(
    visionadapt: Run, tinted_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--data", tinted_folder(), *SMALL, "--shard", "1/2", "--quiet")
    code, output = visionadapt("compare", *options)
    assert (code, output.count("\n")) == (2, 1)
    assert "--shard cannot go with compare" in output
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    code, output = visionadapt("train", *options)
    assert (code, output.count("\n")) == (2, 1)
    assert "torchrun cannot go with --shard 1/2" in output
