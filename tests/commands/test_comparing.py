"""`visionadapt compare`: every candidate on one split, a learning curve, advice and a page; a stopped one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import visionadapt as va

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --epochs 1".split()


@pytest.mark.slow
def test_candidates_share_a_split_and_a_stopped_comparison_goes_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, out = tinted_folder(count=20), tmp_path / "compared"
    code, output = visionadapt("compare", data, "--out", out, *SMALL)
    assert code == 0, output
    found = json.loads((out / "comparison.json").read_text())
    tried = found["candidates"]
    assert len(tried) > 3
    assert tried[0]["adapter"] == "none"
    ledgers = [(out / one["run"] / "ledger.parquet").read_bytes() for one in tried]
    assert all(ledger == ledgers[0] for ledger in ledgers)
    best = next(one for one in tried if one["name"] == found["recommended"])
    assert best["score"] == max(one["score"] for one in tried)
    assert best["name"] in found["advice"][0]
    for one in tried:
        assert one["model_bytes"] == (out / one["run"] / "model.safetensors").stat().st_size
        assert one["interval"][0] <= one["score"] <= one["interval"][1]
    assert va.load(out / best["run"]).golden_difference() < 1e-4
    curve = found["learning_curve"]
    assert [point["images"] for point in curve] == sorted(point["images"] for point in curve)
    assert curve[-1]["score"] == pytest.approx(tried[0]["score"])  # all images: the solved head itself
    page = (out / "comparison.html").read_text()
    assert all(one["name"] in page for one in tried)
    # stopped before the end, it trains only what is missing
    (out / "comparison.html").unlink()
    shutil.rmtree(out / tried[-1]["run"])
    for one in tried[2:4]:  # stopped within candidates of other settings, and other layers
        (out / one["run"] / "summary.json").unlink()
    kept = [*tried[:2], *tried[4:-1]]
    before = {one["run"]: (out / one["run"] / "model.safetensors").stat().st_mtime_ns for one in kept}
    code, output = visionadapt("compare", "--resume", out)
    assert code == 0, output
    assert {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in before} == before
    again = json.loads((out / "comparison.json").read_text())
    assert [one["score"] for one in again["candidates"]] == [one["score"] for one in tried]
    assert again["learning_curve"] == curve
    assert (out / "comparison.html").exists()
    for command in (("train", "--resume"), ("finish",)):  # it is no run
        code, output = visionadapt(*command, out)
        assert (code, output.count("\n")) == (2, 1) and f"compare --resume {out}" in output


def test_an_option_that_candidates_differ_in_is_refused(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    code, output = visionadapt("compare", tinted_folder(count=4), "--out", tmp_path / "c", *SMALL, "--adapter", "lora")
    assert (code, output.count("\n")) == (2, 1)
    assert "--adapter" in output
    assert not (tmp_path / "c").exists()


def test_a_folder_that_compare_did_not_begin_is_no_comparison(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    for given, told in (
        (("--resume", tmp_path), "comparison.json"),
        (("--out", tmp_path, "--data", "x"), "--resume it"),
    ):
        code, output = visionadapt("compare", *given, *SMALL[2:2])
        assert (code, output.count("\n")) == (2, 1)
        assert told in output and "--overwrite" not in output
