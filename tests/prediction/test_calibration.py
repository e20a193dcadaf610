"""Temperature, threshold and distance: against SciPy, by hand, and through a run folder."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import optimize
from scipy.spatial.distance import mahalanobis
from sklearn import metrics
from torch import Tensor

import visionadapt as va
from visionadapt import sources
from visionadapt.errors import RunError
from visionadapt.prediction import distance
from visionadapt.prediction.calibration import Calibration, choose_threshold, fit_calibration, fit_temperature
from visionadapt.prediction.distance import fit_distance
from visionadapt.runs.folder import read_json

from ..conftest import SMALL_BACKBONE, tinted

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]


def logits_and_labels(n: int, temperature: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a classifier that is calibrated at a temperature."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 3, (n, 4))
    p = np.exp(z / temperature)
    labels = (np.cumsum(p / p.sum(1, keepdims=True), axis=1) < random.random((n, 1))).sum(1)
    return torch.from_numpy(z), torch.from_numpy(labels)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    assert fit_temperature(*logits_and_labels(20_000, temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize(("n", "temperature"), [(3, 1.0), (40, 0.3), (500, 6.0)])
def test_the_temperature_is_scipy_s_optimum(n: int, temperature: float) -> None:
    logits, labels = logits_and_labels(n, temperature, seed=n)

    def objective(beta: float) -> float:
        losses = torch.nn.functional.cross_entropy(beta * logits, labels, reduction="sum")
        return float(losses) + beta - math.log(beta)

    found = optimize.minimize_scalar(objective, bounds=(1e-3, 100), method="bounded", options={"xatol": 1e-10})
    assert 1 / fit_temperature(logits, labels) == pytest.approx(found.x, rel=1e-4)


def test_the_temperature_stays_finite_where_every_image_is_right() -> None:
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]] * 4)
    labels = torch.tensor([0, 1] * 4)
    assert 0.4 < fit_temperature(logits, labels) < 1
    assert fit_temperature(torch.zeros(5, 3), torch.tensor([0, 1, 2, 0, 1])) == pytest.approx(1)


def test_calibration_lowers_the_log_loss_and_keeps_every_class() -> None:
    logits, labels = logits_and_labels(300, 0.5)
    before, after = Calibration().probabilities(logits), fit_calibration(logits, labels).probabilities(logits)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert metrics.log_loss(labels, after.numpy()) < metrics.log_loss(labels, before.numpy()) - 0.02


def test_the_threshold_by_hand() -> None:
    """Mean probability of the most confident 1, 2, 3, 4: 0.99, 0.97, 0.9467, 0.86."""
    confidence = np.array([0.6, 0.99, 0.9, 0.95])
    right = np.array([True, True, True, True])
    assert choose_threshold(confidence, right, 0.96) == 0.95
    assert choose_threshold(confidence, right, 0.94) == 0.9
    assert choose_threshold(confidence, right, 0.5) == 0.6
    assert choose_threshold(confidence, right, 0.995) > 1
    assert choose_threshold(np.array([0.9, 0.9, 0.1]), right[:3], 0.9) == 0.9, "equals stay or go together"
    assert choose_threshold(np.empty(0), np.empty(0, bool), 0.9) > 1


def test_probabilities_that_promise_too_much_are_not_believed() -> None:
    """40 of the most confident 100 are wrong, so 0.95 is out of reach there, whatever their probabilities."""
    confidence = np.linspace(0.99, 0.98, 100)
    right = np.arange(100) % 5 > 1
    assert choose_threshold(confidence, right, 0.95) > confidence[20]


def test_the_target_precision_is_reached() -> None:
    calibration = fit_calibration(*logits_and_labels(2_000, 1.5))
    logits, labels = logits_and_labels(20_000, 1.5, seed=1)
    probabilities, chosen = calibration.probabilities(logits).max(1)
    kept = probabilities >= calibration.threshold
    assert 0.1 < float(kept.double().mean()) < 0.5
    assert float((chosen == labels)[kept].double().mean()) == pytest.approx(0.95, abs=0.015)


def test_the_distance_is_mahalanobis_where_every_direction_is_measured() -> None:
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 3, 400))
    features = torch.from_numpy(random.normal(5 * np.eye(3, 6)[labels], [1, 2, 1, 0.5, 1, 1]))
    scaled: NDArray[np.float64] = (features / features.norm(dim=1, keepdim=True)).numpy()
    means = np.stack([scaled[labels.numpy() == label].mean(0) for label in range(3)])
    centred = scaled - means[labels]
    inverse = np.linalg.inv(centred.T @ centred / (400 - 3))
    found = fit_distance(features, labels, 3)
    expected = [min(mahalanobis(row, mean, inverse) for mean in means) for row in scaled[:20]]
    assert found(features[:20]).numpy() == pytest.approx(np.array(expected), rel=1e-4)


@pytest.mark.parametrize("images", [6, 60, 600])
def test_images_unlike_those_of_the_training_are_far(images: int) -> None:
    random = np.random.default_rng(images)

    def draw(n: int, shift: float) -> tuple[Tensor, Tensor]:
        labels = random.integers(0, 2, n)
        centre = np.zeros((2, 200))
        centre[0, :20], centre[1, 20:40], centre[:, 100:120] = 3, 3, shift
        return torch.from_numpy(random.normal(centre[labels], 1).astype(np.float32)), torch.from_numpy(labels)

    found = fit_distance(*draw(images, 0), 2).measured_on(draw(400, 0)[0])
    near, far = found(draw(400, 0)[0]), found(draw(400, 4)[0])
    assert float((near > 1).double().mean()) == pytest.approx(0.05, abs=0.04)
    assert metrics.roc_auc_score([0] * 400 + [1] * 400, torch.cat([near, far])) > 0.99
    assert len(found.directions) <= distance.MOST_DIRECTIONS


def test_a_class_without_training_images_and_equal_features_give_numbers() -> None:
    found = fit_distance(torch.ones(4, 8), torch.zeros(4, dtype=torch.int64), 3).measured_on(torch.ones(2, 8))
    assert torch.isfinite(found(torch.randn(3, 8))).all()


def test_a_calibration_comes_back_as_it_was_saved(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=2)
    model = va.classifier(SMALL_BACKBONE, ("blood", "grass"), None, "none", 32)
    torch.nn.init.normal_(model.head.linear.weight)
    measured = fit_distance(torch.randn(20, model.backbone.num_features), torch.arange(20) % 2, 2)
    calibration = Calibration(0.7, 0.8, 0.95, 20, 12, 11, measured)
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model), weights="none", calibration=calibration)
    loaded = va.load(run)
    assert loaded.calibration.to_json() == calibration.to_json()
    plain = dataclasses.replace(loaded, calibration=Calibration())
    image = data / "blood" / "0.png"
    found, before = loaded.predict(image), plain.predict(image)
    powers = np.array(before.probabilities) ** (1 / 0.7)
    assert found.probabilities == pytest.approx(powers / powers.sum(), rel=1e-9)
    assert found.abstain == (found.probability < 0.8)
    assert found.distance >= 0
    assert before.distance != before.distance
    (run / "calibration.json").write_text("{}")
    with pytest.raises(RunError, match=r"calibration\.json is not this version's"):
        va.load(run)


@pytest.mark.slow
def test_every_run_is_calibrated_on_its_validation_part(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=15), tmp_path / "run"
    (data / "grass" / "broken.png").write_bytes(b"no image")
    arguments = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0")
    code, output = visionadapt("train", "--data", data, "--out", run, *arguments, "--epochs", 3, "--verbose")
    assert code == 0, output
    assert "calibrated on" in output
    table = parquet.read_table(run / "validation" / "predictions.parquet").to_pylist()
    figures = json.loads((run / "validation" / "evaluation.json").read_text())
    used = [row for row in table if row["problem"] is None]
    predictor = va.load(run)
    again = predictor.predict([data / row["file"] for row in used])
    for row, prediction in zip(used, again, strict=True):
        assert row["label"] == prediction.label
        assert row["true_class"] == row["file"].split("/")[0]
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
        assert row["distance"] == pytest.approx(prediction.distance, rel=1e-3)
    assert figures["pictures"] == len(used)
    assert figures["rows"] == len(table)
    assert figures["calibration"]["fitted"] == read_json(run, "calibration.json")
    assert figures["calibration"]["log_loss_before"] >= figures["log_loss"] - 0.02
    truth = [["blood", "grass"].index(row["true_class"]) for row in used]
    expected = metrics.log_loss(truth, [row["probabilities"] for row in used], labels=[0, 1])
    assert figures["log_loss"] == pytest.approx(expected, abs=1e-9)
    tinted((40, 40), 1, 5).save(tmp_path / "one.png")
    assert math.isfinite(predictor.predict(tmp_path / "one.png").distance)


def test_a_classifier_is_calibrated_in_python(tinted_folder: Make, tmp_path: Path) -> None:
    train, val = va.split(sources.FolderSource(tinted_folder(count=15)), val=0.4, seed=0)
    model = va.classifier(SMALL_BACKBONE, train.classes, None, "none", 32)
    prepare = va.preprocessing_for(model)
    for _ in va.fit(model, train, val, prepare, epochs=3, workers=0):
        pass
    calibration = va.calibrate(model, train, val, prepare)
    assert calibration.images == len(val)
    run = va.save(tmp_path / "run", model, prepare, weights="none", calibration=calibration)
    distances = [row.distance for row in va.load(run).predict([val.read(index) for index in range(len(val))])]
    assert np.quantile(distances, 0.95) == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_a_classifier_trained_in_a_custom_loop_is_calibrated(tinted_folder: Make, tmp_path: Path) -> None:
    train, val = va.split(sources.FolderSource(tinted_folder(count=15)), val=0.4, seed=0)
    model = va.classifier(SMALL_BACKBONE, train.classes, "bottleneck(rank=2, blocks=last:2)", "none", 32)
    prepare = va.preprocessing_for(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    loader = va.loader(train, prepare, 8, shuffle=True)
    for _ in range(3):
        model.train()
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    calibration = va.calibrate(model, train, val, prepare)
    assert calibration.images == len(val)
    batch = next(iter(va.loader(val, prepare, len(val))))
    with torch.no_grad():
        logits = model(batch["image"])
    assert calibration.temperature == pytest.approx(fit_temperature(logits, batch["label"]), rel=0.05)
    predictor = va.load(va.save(tmp_path / "run", model, prepare, weights="none", calibration=calibration))
    distances = [row.distance for row in predictor.predict([val.read(index) for index in range(len(val))])]
    assert np.quantile(distances, 0.95) == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_slices_add_up(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=8), tmp_path / "run"
    arguments = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0")
    visionadapt("train", "--data", data, "--out", run, *arguments, "--epochs", 2)
    lines = ["file,label,sender,season"]
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        season = ("", "=summer", "winter")[number % 3]
        lines.append(f"{path.relative_to(tmp_path)},{path.parent.name},s{number % 2},{season}")
    (tmp_path / "rows.csv").write_text("\n".join([*lines, "data/gone.png,grass,s1,winter"]))
    table = f"csv({tmp_path}/rows.csv, image=file, label=label, group=sender)"
    by = ("--slice-by", "season", "--slice-by", "group", "--slice-by", "label")
    code, output = visionadapt("evaluate", run, "--data", table, *by, "--workers", 0)
    assert code == 0, output
    assert "images: 16 of 17 rows (1 rejected)" in output
    figures = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert {name: [row["value"] for row in rows] for name, rows in figures["slices"].items()} == {
        "season": ["=summer", "winter", None],
        "group": ["s0", "s1"],
        "label": ["blood", "grass"],
    }
    for rows in figures["slices"].values():
        assert sum(row["pictures"] for row in rows) == 16
        right = sum(row["accuracy"] * row["pictures"] for row in rows)
        assert right / 16 == pytest.approx(figures["accuracy"])
        assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in rows)
        assert sum(row["rejected"] for row in rows) == 1
    assert "'=summer" in (run / "evaluation" / "slices.csv").read_text()
    code, output = visionadapt("evaluate", run, "--data", table, "--slice-by", "seasn")
    assert (code, output.count("error:")) == (2, 1)
    assert "did you mean 'season'?" in output
