"""`visionadapt finish RUN`: a stopped run becomes a model like any other, and can still be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.runs.tensors import read_tensors

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SETTINGS = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", 32, "--workers", 0, "--batch-size", 4),
    *("--adapter", "bottleneck(rank=2, blocks=last:1)", "--epochs", 3, "--patience", 0, "--precision", "float32"),
)
STOP = ("--max-minutes", 0.00001)


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return read_tensors(run / f"{name}.safetensors")[0]


@pytest.mark.slow
def test_a_stopped_run_becomes_a_model_and_can_still_be_resumed(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=6), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SETTINGS, *STOP)
    assert code == 0 and f"visionadapt finish {run}" in output
    assert visionadapt("predict", run, data)[0] == 2  # no model yet
    for _ in range(2):  # finishing it again changes nothing
        code, output = visionadapt("finish", run, "--quiet")
        assert (code, output) == (0, f"{run}\n")
        summary = json.loads((run / "summary.json").read_text())
        kept = read_tensors(run / "checkpoint.safetensors")[1]
        assert (summary["best_epoch"], summary["stopped_after"]) == (kept["best_epoch"], 1)
        best = {name: value for name, value in weights(run, "checkpoint").items() if name.startswith("best/")}
        assert {name.removeprefix("best/") for name in best} == set(weights(run))
        served = weights(run)
        width = served["head/linear.weight"].shape[-1]
        assert not best["best/head/linear.weight"][:, width:].any()  # what a model does not use is left out of it
        for name, value in served.items():
            whole = best[f"best/{name}"]
            wide = name in {"head/linear.weight", "head/feature_mean", "head/feature_std"}
            assert torch.equal(value, whole[..., :width] if wide else whole)
    assert {"report.html", "calibration.json", "golden.safetensors", "validation"} <= {p.name for p in run.iterdir()}
    predictor = va.load(run)
    assert predictor.golden_difference() < 1e-6 and predictor.calibration.distance is not None
    assert summary["golden_difference"] < 1e-6
    assert visionadapt("predict", run, data, "--out", tmp_path / "predictions.csv", "--workers", 0)[0] == 0
    assert visionadapt("evaluate", run, "--data", data, "--workers", 0)[0] == 0
    code, output = visionadapt("train", "--resume", run)
    assert code == 0 and json.loads((run / "summary.json").read_text())["stopped_after"] is None
    whole = tmp_path / "whole"
    assert visionadapt("train", "--data", data, "--out", whole, *SETTINGS)[0] == 0
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    code, output = visionadapt("finish", run)
    assert code == 0 and "finished already" in output


@pytest.mark.slow
def test_a_run_without_a_whole_epoch_cannot_be_finished(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SETTINGS, *STOP)[0] == 0
    for path in run.glob("checkpoint*"):
        path.unlink()
    code, output = visionadapt("finish", run)
    assert code == 2 and "--resume" in output and "Traceback" not in output


@pytest.mark.parametrize("text", [None, "{}", "[1]", "{"])
def test_what_is_no_run_of_train_is_refused(visionadapt: Run, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    code, output = visionadapt("finish", tmp_path)
    assert code == 2 and output.count("\n") == 1 and str(tmp_path) in output
