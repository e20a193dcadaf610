"""An ensemble of candidates becomes a run folder like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.commands import ensembling
from visionadapt.commands.candidates import Candidate, Result, right_of
from visionadapt.commands.training_run import features_again
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.saved import read_model

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --epochs 2".split()
ADAPTERS = ("none", "lora(blocks=last:1)", "bottleneck(blocks=last:2, rank=2)")


@pytest.fixture
def tried(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> list[Result]:
    """Three candidates in their folders."""
    data, results = tinted_folder(count=8), []
    for number, adapter in enumerate(ADAPTERS, 1):
        run = tmp_path / "search" / "candidates" / str(number)
        code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--adapter", adapter)
        assert code == 0, output
        score = json.loads((run / "summary.json").read_text())["val_accuracy"]
        results.append(Result(Candidate(f"number {number}", adapter), run, score, right_of(run), 1.0))
    return results


@pytest.mark.slow
def test_an_ensemble_is_a_run(
    tried: list[Result], visionadapt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    monkeypatch.setattr(ensembling, "is_better", lambda *given: False)
    assert (
        ensembling.with_ensemble(
            tried, ensembling.choose_from(tried), out, Reporter(quiet=True), features_again, TrainingSettings()
        )
        == tried
    )
    # taken where it is better
    monkeypatch.setattr(ensembling, "is_better", lambda *given: True)
    monkeypatch.setattr(ensembling, "choose_members", lambda probabilities, labels: [1, 0])
    for result in tried:
        result.right[:] = False  # so that its accuracy is no lower
    assert ensembling.choose_from(tried) == [tried[2], tried[1]]
    assert ensembling.choose_from(tried, most=1) == []
    members = [tried[2], tried[0], tried[1]]
    *_, made = ensembling.with_ensemble(tried, members, out, Reporter(quiet=True), features_again, TrainingSettings())
    assert made.candidate.name == "ensemble of 3"
    assert read_model(made.run)[1]["members"] == ["bottleneck(blocks=last:2, rank=2)", "none", "lora(blocks=last:1)"]
    assert "blocks" in read_model(made.run)[1]["member_features"]
    # it computes the mean of the members' calibrated logits
    loaded, parted = va.load(made.run), [va.load(result.run) for result in tried]
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        parts = [member.classifier(pixels) / member.calibration.temperature for member in parted]
        torch.testing.assert_close(loaded.classifier(pixels), torch.stack(parts).mean(0), rtol=1e-4, atol=1e-4)
    assert loaded.golden_difference() < 1e-4
    assert loaded.calibration.distance is not None
    assert made.score == pytest.approx(made.right.mean()) and made.scored_by_accuracy
    summary = json.loads((made.run / "summary.json").read_text())
    (made.run / "summary.json").write_text(json.dumps({**summary, "val_macro_f1": 0.25}))
    other = TrainingSettings(metric="macro_f1")
    *_, same = ensembling.with_ensemble(tried, members, out, Reporter(quiet=True), features_again, other)
    assert same.score == 0.25
    # and every command takes it
    data = json.loads((made.run / "config.json").read_text())["options"]["data"]
    for given in (("report", made.run), ("evaluate", made.run, "--data", data), ("verify", made.run)):
        code, output = visionadapt(*given)
        assert code == 0, output
    assert visionadapt("train", "--resume", made.run)[0] == 0
    for given in (
        ("train", "--resume", made.run, "--epochs", 5),
        ("train", "--data", data, "--from", made.run),
        ("runs", made.run, "--toml"),
    ):
        code, output = visionadapt(*given)
        assert (code, output.count("\n")) == (2, 1)
        assert "ensemble" in output
    # a second search keeps it
    before = (made.run / "model.safetensors").stat().st_mtime_ns
    ensembling.with_ensemble(tried, members, out, Reporter(quiet=True), features_again, TrainingSettings())
    assert (made.run / "model.safetensors").stat().st_mtime_ns == before
    # trained once more, each member on all images
    figures = (made.run / "validation" / "evaluation.json").read_bytes()
    ensembling.refit_result(made, tried, features_again, Reporter(quiet=True))
    again = va.load(made.run)
    assert again.golden_difference() < 1e-4
    assert again.calibration.temperature == loaded.calibration.temperature
    assert (made.run / "validation" / "evaluation.json").read_bytes() == figures
    assert (made.run / "model.safetensors").stat().st_mtime_ns != before
    summary = json.loads((made.run / "summary.json").read_text())
    assert summary["refit_images"] == summary["train_images"] + summary["val_images"]
