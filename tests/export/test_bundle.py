"""A bundle opens without the weights that its run was trained with; a run without them says which it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

import visionadapt as va
from visionadapt import backbones
from visionadapt.errors import RunError

from ..conftest import SMALL_BACKBONE, tinted

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose weights were read from a file."""
    save_file(backbones.load(SMALL_BACKBONE, "none", seed=5).model.state_dict(), tmp_path / "weights.safetensors")
    weights = tmp_path / "weights.safetensors"
    model = va.classifier(SMALL_BACKBONE, ("blood", "grass"), "lora(rank=2, blocks=last:1)", weights, 64)
    return va.save(tmp_path / "run", model, va.preprocessing_for(model))


@pytest.mark.slow
def test_a_bundle_opens_anywhere(run: Path, tmp_path: Path, visionadapt: Run) -> None:
    image = np.asarray(tinted((50, 60), 0, 0))
    own = va.load(run).predict_proba(image)
    bundle = tmp_path / "elsewhere" / "bundle"
    code, output = visionadapt("export", run, "--out", bundle, "--format", "bundle")
    assert code == 0, output
    shutil.rmtree(run)
    (tmp_path / "weights.safetensors").unlink()
    assert np.array_equal(va.load(bundle).predict_proba(image), own)
    again = tmp_path / "again"
    assert visionadapt("export", bundle, "--out", again, "--format", "bundle")[0] == 0
    assert np.array_equal(va.load(again).predict_proba(image), own)


def test_other_weights_in_a_bundle_are_refused(run: Path, tmp_path: Path, visionadapt: Run) -> None:
    assert visionadapt("export", run, "--out", tmp_path / "bundle", "--format", "bundle")[0] == 0
    other = backbones.load(SMALL_BACKBONE, "none", 64, seed=6).model.state_dict()
    save_file(other, tmp_path / "bundle" / "backbone.safetensors")
    with pytest.raises(RunError, match="weights_hash"):
        va.load(tmp_path / "bundle")


def test_a_run_whose_weights_have_moved_says_which_it_needs(run: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").rename(tmp_path / "moved.safetensors")
    wanted = json.loads((run / "config.json").read_text())["weights_hash"]
    with pytest.raises(RunError, match=wanted):
        va.load(run)
    assert va.load(run, weights=tmp_path / "moved.safetensors").classes == ("blood", "grass")
