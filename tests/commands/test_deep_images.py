"""Sets of deep and many-banded images, through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import visionadapt as va
from tests.conftest import SMALL_BACKBONE
from tests.images.samples import Array, tiff
from visionadapt.errors import SpecError, UsageError
from visionadapt.model.preprocessing import preprocessing_for, range_text

Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0")
QUICK = (*SMALL, "--adapter", "none", "--epochs", 1)


def saved(root: Path, of: Callable[[Array], Array], tags: dict[int, int] | None = None) -> Path:
    """Two classes of ten TIFFs: what `of` makes of values in [0, 1], [H, W, 3], reddish or greenish."""
    for label in range(2):
        (root / "ab"[label]).mkdir(parents=True)
        for number in range(10):
            values = np.random.default_rng(10 * label + number).uniform(0, 0.6, (40, 50, 3))
            values[..., label] += 0.4
            values.flat[0], values.flat[1] = 0, 1
            (root / "ab"[label] / f"{number}.tif").write_bytes(tiff(of(values), tags=tags))
    return root


@pytest.mark.slow
def test_a_measured_range_belongs_to_the_run(visionadapt: Run, tmp_path: Path) -> None:
    data, run = saved(tmp_path / "data", lambda values: (values * 3000).round().astype(np.uint16)), tmp_path / "run"
    eight = saved(tmp_path / "eight", lambda values: (values * 255).round().astype(np.uint8))
    code, output = visionadapt("train", "--data", data, "--out", run, *QUICK)
    assert code == 0, output
    assert "0…3000" in output and "16 images" in output and "uint16" in output
    assert json.loads((run / "config.json").read_text())["options"]["sample_range"] == "0,3000"
    assert json.loads((run / "preprocess.json").read_text())[0]["sample_range"] == [0, 3000]
    assert json.loads((run / "summary.json").read_text())["golden_difference"] < 1e-4

    predictor = va.load(run)
    deep, shallow = (predictor.predict_proba(folder / "a" / "3.tif") for folder in (data, eight))
    assert np.abs(deep - shallow).max() < 0.01
    assert set(pq.read_table(run / "ledger.parquet")["status"].to_pylist()) == {"repaired"}

    (run / "summary.json").unlink()
    code, again = visionadapt("train", "--resume", run, "--workers", 0)
    assert code == 0 and "sample range" not in again, again


@pytest.mark.slow
def test_a_given_range_is_taken_and_none_can_be_demanded(visionadapt: Run, tmp_path: Path) -> None:
    data = saved(tmp_path / "data", lambda values: (values * 3000).round().astype(np.uint16))
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "a", *QUICK, "--sample-range", "-5,4095")
    assert code == 0 and "sample range" not in output, output
    assert va.load(tmp_path / "a").prepare.decode.sample_range == (-5, 4095)
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "b", *QUICK, "--sample-range", "declared")
    assert code == 2 and "sample_range" in output and "16-bit" in output, output


@pytest.mark.slow
def test_bands_are_refused_or_chosen(visionadapt: Run, tmp_path: Path) -> None:
    """Band 5 is red, 3 green and 1 blue."""

    def scattered(values: Array) -> Array:
        five = np.zeros((*values.shape[:2], 5))
        five[..., [4, 2, 0]] = values
        return (five * 255).round().astype(np.uint8)

    data = saved(tmp_path / "data", scattered)
    plain = saved(tmp_path / "plain", lambda values: (values * 255).round().astype(np.uint8))
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "a", *QUICK)
    assert code == 2 and "TIFF with 5 bands of uint8" in output and "bands=" in output, output
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "b", *QUICK, "--bands", "5,3,1")
    assert code == 0, output
    code, output = visionadapt("train", "--data", plain, "--out", tmp_path / "c", *QUICK)
    assert code == 0, output
    chosen, usual = va.load(tmp_path / "b"), va.load(tmp_path / "c")
    assert chosen.prepare.decode.bands == (5, 3, 1)
    files = [chosen.predict_proba(data / "a" / "1.tif"), usual.predict_proba(plain / "a" / "1.tif")]
    assert np.array_equal(*files)


def test_an_audit_reads_deep_and_banded_files_as_training_does(tmp_path: Path) -> None:
    data = saved(tmp_path / "data", lambda values: (np.dstack([values, values]) * 3000).round().astype(np.uint16))
    settings = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 64, "workers": 0}
    assert va.audit(data, **settings).usable == 0
    found = va.audit(data, **settings, bands="6,5,1")
    assert found.usable == 20 and found.decode.sample_range == (0, 3000)
    assert set(found.statistics.forms) == {"TIFF"} and len(found.statistics.modes) == 1


def test_texts_of_range_and_bands() -> None:
    prepare = preprocessing_for(SMALL_BACKBONE, image_size=64, sample_range="-1024,3071.5", bands="3,2,1")
    assert prepare.decode.sample_range == (-1024, 3071.5) and prepare.decode.bands == (3, 2, 1)
    assert range_text(prepare.decode.sample_range) == "-1024,3071.5"
    for wrong in (
        {"sample_range": "4095"},
        {"sample_range": "9,1"},
        {"sample_range": "a,b"},
        {"sample_range": "1,nan"},
    ):
        with pytest.raises(UsageError, match="--sample-range"):
            preprocessing_for(SMALL_BACKBONE, image_size=64, **wrong)
    for wrong in ({"bands": "1,2"}, {"bands": "0,1,2"}, {"bands": "r,g,b"}):
        with pytest.raises(UsageError, match="--bands"):
            preprocessing_for(SMALL_BACKBONE, image_size=64, **wrong)
    with pytest.raises(SpecError):
        preprocessing_for(SMALL_BACKBONE, image_size=64, bands=(1, 2))
