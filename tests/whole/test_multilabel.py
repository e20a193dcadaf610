"""Several classes per image, from a table with several labels per cell to predictions and metrics."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

import visionadapt as va
from visionadapt.errors import AdapterError, RunError, UsageError
from visionadapt.model.classifier import load_trained_tensors
from visionadapt.runs.saved import restore
from visionadapt.runs.tensors import write_tensors
from visionadapt.sources import FolderSource, TableSource

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str]]
Make = Callable[..., Path]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0")
COLOURS = ("red", "green", "blue")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """64 images in which any of three channels are bright, or none, and a table that names the bright ones."""
    rows = []
    for number in range(64):
        has = [number >> bit & 1 for bit in range(3)]
        pixels = np.random.default_rng(number).normal(70, 20, (24, 24, 3)) + 110 * np.array(has)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", "|".join(name for name, there in zip(COLOURS, has, strict=True) if there)))
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "colours"), *rows])
    return path


def source_of(table: Path) -> str:
    return f'csv({table}, image=file, label=colours, separator="|")'


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("adapter", ["none", "bottleneck(rank=4, blocks=last:1)"])
def test_refitted_on_all_images_it_keeps_its_thresholds(
    visionadapt: Run, table: Path, tmp_path: Path, adapter: str
) -> None:
    """They were chosen on validation images, which the last training has learnt."""
    given = ("--data", source_of(table), "--task", "multilabel", *SMALL, "--epochs", "2", "--adapter", adapter)
    for name, more in (("before", ()), ("after", ("--refit",))):
        code, output = visionadapt("train", *given, "--out", tmp_path / name, *more)
        assert code == 0, output
    before, after = (va.load(tmp_path / name).classifier for name in ("before", "after"))
    assert torch.equal(after.thresholds, before.thresholds) and len(set(before.thresholds.tolist())) == 3
    assert not torch.equal(after.head.linear.weight, before.head.linear.weight)


def test_from_table_to_predictions_and_metrics(visionadapt: Run, table: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", source_of(table)
    settings = ("--task", "multilabel", "--loss", "asymmetric", "--epochs", "8", "--batch-size", "8")
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, *settings, "--adapter", "none")
    assert code == 0, output
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "multilabel"
    assert summary["images"] == {"used": 64, "repaired": 0, "rejected": 0}
    assert summary["val_mean_average_precision"] > 0.9
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = lines[summary["best_epoch"] - 1]
    assert best["val_mean_average_precision"] == max(line["val_mean_average_precision"] for line in lines)
    assert "val_accuracy" not in best
    assert "validation mean average precision: " in output

    code, output = visionadapt("evaluate", run, "--data", data, "--workers", 0)
    assert code == 0, output
    measured = json.loads((run / "evaluation" / "evaluation.json").read_text())
    table_rows = rows_of(run / "evaluation" / "predictions.csv")
    predictor = va.load(run)
    scores = np.array([[float(row[f"probability of {name}"]) for name in predictor.classes] for row in table_rows])
    names = [row["true_classes"].split("|") for row in table_rows]
    truth = np.array([[name in own for name in predictor.classes] for own in names])
    assert predictor.classes == ("blue", "green", "red")
    assert truth.sum() == 96 and (~truth.any(1)).sum() == 8
    thresholds = load_file(run / "model.safetensors")["thresholds"].numpy()
    found = scores >= thresholds
    assert [row["labels"] for row in table_rows] == ["|".join(np.array(predictor.classes)[row]) for row in found]
    assert measured["mean_average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    assert measured["macro_f1"] == pytest.approx(f1_score(truth, found, average="macro"))
    assert measured["micro_f1"] == pytest.approx(f1_score(truth, found, average="micro"))
    assert measured["exact_matches"] == pytest.approx((truth == found).all(1).mean())
    expected = precision_recall_fscore_support(truth, found)
    for place, name in enumerate(predictor.classes):
        own = measured["per_class"][name]
        figures = (own["precision"], own["recall"], own["f1"], own["support"])
        assert figures == pytest.approx([column[place] for column in expected])
        assert own["threshold"] == thresholds[place]
        assert own["average_precision"] == pytest.approx(average_precision_score(truth[:, place], scores[:, place]))
        low, high = own["intervals"]["recall"]
        assert low <= own["recall"] <= high
    assert "mean average precision: " in output and "accuracy" not in output

    validated = json.loads((run / "validation" / "evaluation.json").read_text())
    assert validated["mean_average_precision"] == pytest.approx(summary["val_mean_average_precision"], abs=1e-9)
    assert validated["macro_f1"] == pytest.approx(summary["val_macro_f1"], abs=1e-9)
    stored = pq.read_table(run / "validation" / "predictions.parquet").to_pylist()
    assert {type(row["labels"]) for row in stored} == {list}

    code, output = visionadapt("predict", run, tmp_path / "3.png", tmp_path / "0.png", "--out", tmp_path / "p.jsonl")
    assert code == 0, output
    told = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for row, place in zip(told, (3, 0), strict=True):
        assert row["labels"] == [name for name, there in zip(predictor.classes, found[place], strict=True) if there]
        assert list(row["probabilities"].values()) == pytest.approx(scores[place].tolist(), abs=1e-6)
    assert "mean average precision" in (run / "report.html").read_text(encoding="utf-8")

    prediction = predictor.predict(tmp_path / "3.png")
    assert set(prediction.labels) == {"red", "green"}
    assert prediction.probabilities == pytest.approx(scores[3].tolist(), abs=1e-6)


def test_resuming_gives_the_same_weights_and_thresholds(visionadapt: Run, table: Path, tmp_path: Path) -> None:
    settings = ("--epochs", "4", "--batch-size", "16", "--adapter", "bottleneck(rank=2, blocks=last:1)")
    data = source_of(table)
    assert visionadapt("train", "--data", data, "--out", tmp_path / "whole", *SMALL, *settings)[0] == 0
    assert len(rows_of(tmp_path / "whole" / "rejected.csv")) == 8  # rows without labels, as no task is asked for
    source = TableSource(table, "file", "colours", separator="|")
    train, val = va.split(source)
    model = va.classifier(SMALL_BACKBONE, source.classes, settings[-1], "none", 32)
    model.use_features("blocks")  # as the command does
    epochs = va.fit(model, train, val, va.preprocessing_for(model), epochs=4, batch_size=16, workers=0)
    state = [next(epochs), next(epochs)][1].state
    run = tmp_path / "half"
    code, _ = visionadapt("train", "--data", data, "--out", run, *SMALL, *settings)
    assert code == 0
    for name in ("summary.json", "model.safetensors", "checkpoint.safetensors", "checkpoint-before.safetensors"):
        (run / name).unlink()
    write_tensors(run / "checkpoint.safetensors", state.tensors, dict(state.facts))
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert "epoch 3/4" in output and "epoch 2/4" not in output
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_fit_and_save_in_python(table: Path, tmp_path: Path) -> None:
    source = TableSource(table, "file", "colours", separator="|")
    train, val = va.split(source, val=0.3, task="multilabel")
    model = va.classifier(SMALL_BACKBONE, source.classes, None, "none", 32)
    prepare = va.preprocessing_for(model)
    epochs = list(va.fit(model, train, val, prepare, epochs=2, task="multilabel", class_weights="balanced"))
    assert model.task == "multilabel" and model.thresholds.shape == (3,)
    assert epochs[-1].figure == "val_mean_average_precision"
    assert epochs[-1].val_score == epochs[-1].figures["val_mean_average_precision"]
    with pytest.raises(UsageError, match="val_mean_average_precision"):
        _ = epochs[-1].val_accuracy
    run = va.save(tmp_path / "run", model, prepare, weights="none")
    predictor = va.load(run)
    assert predictor.task == "multilabel"
    assert torch.equal(predictor.classifier.thresholds, model.thresholds)
    single = va.classifier(SMALL_BACKBONE, source.classes, None, "none", 32)
    with pytest.raises(RunError, match="was trained with task 'multilabel', and this model has 'single'"):
        restore(single, run)
    with pytest.raises(AdapterError, match="was not trained for the task 'single'"):
        load_trained_tensors(single, load_file(run / "model.safetensors"))
    batch = next(iter(va.loader(train, prepare, 4)))
    assert batch["label"].dtype == torch.float32 and batch["label"].shape == (4, 3)


def test_a_loss_of_the_other_task_is_refused(table: Path, tinted_folder: Make) -> None:
    for source, loss, words in (
        (TableSource(table, "file", "colours", separator="|"), "cross_entropy", "give bce, asymmetric, focal or auto"),
        (FolderSource(tinted_folder()), "asymmetric", "give cross_entropy, focal or auto"),
    ):
        train, val = va.split(source)
        model = va.classifier(SMALL_BACKBONE, source.classes, None, "none", 32)
        with pytest.raises(UsageError, match=f"--loss {loss} .* {words}"):
            next(va.fit(model, train, val, va.preprocessing_for(model), loss=loss))


def test_one_label_per_image_can_be_learned_as_several(tinted_folder: Make) -> None:
    source = FolderSource(tinted_folder())
    train, val = va.split(source, task="multilabel")
    model = va.classifier(SMALL_BACKBONE, source.classes, None, "none", 32)
    epoch = next(va.fit(model, train, val, va.preprocessing_for(model), epochs=1, task="multilabel"))
    assert set(epoch.figures) == {"val_mean_average_precision", "val_macro_f1"}
