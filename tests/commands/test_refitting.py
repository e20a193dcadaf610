"""`train --refit` trains on all images at the end, and leaves the figures of before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.runs import ledger

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --epochs 2".split()
FIGURES = ("validation/evaluation.json", "validation/predictions.parquet", "ledger.parquet")


@pytest.fixture
def data(tinted_folder: Make) -> Path:
    return tinted_folder(count=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--adapter", "none"), ("--adapter", "bottleneck(rank=2, blocks=last:1)", "--ema-decay", "0.9")]
)
def test_the_classifier_is_another_and_its_figures_are_those_of_before(
    visionadapt: Run, data: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    given = ("train", "--data", data, *SMALL, *options)
    assert visionadapt(*given, "--out", tmp_path / "before")[0] == 0
    for name in ("once", "twice"):
        code, output = visionadapt(*given, "--out", tmp_path / name, "--refit")
        assert code == 0, output
    before, once, twice = (tmp_path / name for name in ("before", "once", "twice"))
    for file in FIGURES:
        assert (once / file).read_bytes() == (before / file).read_bytes()
    assert (once / "model.safetensors").read_bytes() == (twice / "model.safetensors").read_bytes()
    assert (once / "model.safetensors").read_bytes() != (before / "model.safetensors").read_bytes()
    first, second = (va.load(run) for run in (before, once))
    assert second.calibration.temperature == first.calibration.temperature
    assert second.golden_difference() < 1e-5
    images = json.loads((once / "summary.json").read_text())["refit_images"]
    assert images == sum(row["status"] == "used" for row in ledger.ledger_rows(once))
    assert len(ledger.trained_files(once)) > len(ledger.trained_files(before))  # evaluate warns of all of them


@pytest.mark.slow
def test_the_validation_images_are_learnt(visionadapt: Run, data: Path, tmp_path: Path) -> None:
    """An image among the validation images with a wrong label is given that label more than before."""
    folder = tmp_path / "split"
    for part, kept in (("train", slice(2, None)), ("val", slice(2))):
        for images in sorted(data.iterdir()):
            (folder / part / images.name).mkdir(parents=True)
            for image in sorted(images.iterdir())[kept]:
                shutil.copy(image, folder / part / images.name)
    first, second, *_ = sorted((folder / "val").iterdir())
    moved = shutil.move(next(first.iterdir()), second / "moved.png")
    wrong = {}
    for name, given in (("before", ()), ("after", ("--refit",))):
        run = tmp_path / name
        code, output = visionadapt("train", "--data", folder, *SMALL, "--out", run, "--adapter", "none", *given)
        assert code == 0, output
        model = va.load(run)
        pixels = model.prepare.device(model.prepare.host(Path(moved).read_bytes())[None])
        with torch.no_grad():
            wrong[name] = float(model.classifier(pixels).softmax(1)[0, model.classes.index(second.name)])
    assert wrong["after"] > wrong["before"]


def test_what_cannot_be_is_refused(visionadapt: Run, data: Path, tmp_path: Path) -> None:
    code, output = visionadapt("train", "--data", data, *SMALL, "--out", tmp_path / "run", "--refit", "--folds", 3)
    assert (code, output.count("\n")) == (2, 1)
    assert "--refit" in output


@pytest.mark.slow
def test_a_run_that_was_stopped_before_is_refit_to_the_same(visionadapt: Run, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = ("--data", data, *SMALL, "--adapter", "bottleneck(rank=2, blocks=last:1)", "--refit")
    assert visionadapt("train", *given, "--out", run)[0] == 0
    model = (run / "model.safetensors").read_bytes()
    for name in ("summary.json", "report.html"):
        (run / name).unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert (run / "model.safetensors").read_bytes() == model
