"""Exports in fewer bits: what they cost is measured, told, and checked again."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet
import pytest
from onnx import numpy_helper
from PIL import Image

import visionadapt as va
from visionadapt.commands.training_run import train
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.export import onnx_files
from visionadapt.export.export import export
from visionadapt.export.onnx_files import costs
from visionadapt.export.onnx_model import onnx_model
from visionadapt.export.reduced import reduced_model
from visionadapt.export.verify import verify
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.options import RunOptions

from ..conftest import SMALL_BACKBONE, tinted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of two colours, which are still there."""
    folder = tmp_path_factory.mktemp("reduced")
    for label, name in enumerate(("blood", "grass")):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(10):
            tinted((60 + number, 44), label, 100 * label + number).save(folder / "data" / name / f"{number}.png")
    options = RunOptions(
        data=str(folder / "data"), out=str(folder / "run"), backbone=SMALL_BACKBONE, weights="none", adapter="none"
    )
    return train(options, TrainingSettings(epochs=2, workers=0))


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Every export here begins with the same float32 model of one run; to make it takes as long as all that follows."""
    made: list[tuple[onnx.ModelProto, bool]] = []

    def traced(predictor: Predictor) -> tuple[onnx.ModelProto, bool]:
        if not made:
            made.append(onnx_model(predictor))
        return copy.deepcopy(made[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "onnx_model", traced)
        yield


@pytest.fixture(scope="module")
def halved(trained: Path) -> Path:
    return export(trained, trained.parent / "halved", precision="float16")


def probabilities(path: Path, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {"image": image[None]})[0] for image in images])


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_it_is_smaller_and_costs_what_the_manifest_says(
    trained: Path, halved: Path, tmp_path: Path, precision: str
) -> None:
    folder = halved if precision == "float16" else export(trained, tmp_path / "out", precision="int8")
    name = f"{precision}.onnx"
    facts = json.loads((folder / "manifest.json").read_text())["reduced"][precision]
    assert (folder / name).stat().st_size < (folder / "model.onnx").stat().st_size
    rows = pyarrow.parquet.read_table(trained / "ledger.parquet").to_pylist()
    paths = [trained.parent / "data" / row["file"] for row in rows if row["part"] == "val"]
    assert facts["measured_on"] == "validation" and facts["images"] == len(paths) == 4
    images = [pixels_of(path) for path in paths]
    exact, reduced = (probabilities(folder / each, images) for each in ("model.onnx", name))
    labels = [("blood", "grass").index(path.parent.name) for path in paths]
    assert facts["largest"] == pytest.approx(float(np.abs(exact - reduced).max()), abs=1e-6)
    assert facts["accuracy"] == float((reduced.argmax(1) == labels).mean())
    assert facts["same"] == float((reduced.argmax(1) == exact.argmax(1)).mean())
    assert facts["largest"] > 0 and list(costs(folder)) == [name]
    checks = {check.path: check for check in verify(folder, trained)}
    assert all(check.passed for check in checks.values()), checks
    assert name in checks


def test_a_classifier_without_a_distance_can_be_reduced(trained: Path) -> None:
    predictor = va.load(trained)
    without = dataclasses.replace(predictor, calibration=dataclasses.replace(predictor.calibration, distance=None))
    images = [pixels_of(path) for path in sorted((trained.parent / "data" / "blood").iterdir())]
    reduced = reduced_model(onnx_model(without)[0], "int8", images)
    session = onnxruntime.InferenceSession(reduced.SerializeToString(), providers=["CPUExecutionProvider"])
    found, distance = session.run(["probabilities", "distance"], {"image": images[0][None]})
    assert np.isfinite(found).all() and np.isnan(distance).all()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_another_model_in_its_place_is_found(halved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(halved, folder)
    model = onnx.load(folder / "float16.onnx")
    bias = next(each for each in model.graph.initializer if list(each.dims) == [2] and each.name.endswith("bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([3, -3]), bias.name))
    onnx.save(model, folder / "float16.onnx")
    found = {check.path: check for check in verify(folder)}
    assert not found["files"].passed and not found["float16.onnx"].passed and found["model.onnx"].passed


def test_without_the_images_int8_is_refused_and_float16_is_measured_on_golden_ones(
    trained: Path, tmp_path: Path, visionadapt: Callable[..., tuple[int, str]]
) -> None:
    alone = va.save(tmp_path / "alone", va.load(trained))
    with pytest.raises(UsageError, match="--precision int8 learns from images"):
        export(alone, tmp_path / "int8", precision="int8")
    assert not (tmp_path / "int8").exists()
    code, output = visionadapt("export", alone, "--out", tmp_path / "half", "--precision", "float16")
    assert code == 0
    assert "float16.onnx: the same class as in float32" in output and "(golden images)" in output
    assert json.loads((tmp_path / "half" / "manifest.json").read_text())["reduced"]["float16"]["accuracy"] is None
