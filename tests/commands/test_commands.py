"""The commands as a user meets them: run folders, tables, and mistakes that are one line."""

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
from safetensors import safe_open
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

import visionadapt as va
from visionadapt.runs.tensors import read_tensors, write_tensors

from ..conftest import SMALL_BACKBONE, tinted

Make = Callable[..., Path]
SMALL = (
    "--backbone",
    SMALL_BACKBONE,
    "--weights",
    "none",
    "--image-size",
    "64",
    "--workers",
    "0",
    "--precision",
    "float32",
)
ADAPTER = ("--adapter", "bottleneck(rank=4, blocks=last:2)")


Run = Callable[..., tuple[int, str]]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_from_folder_to_evaluation(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, *ADAPTER, "--epochs", 3)
    assert code == 0, output
    names = ["config", "plan", "classes", "preprocess", "summary"]
    config, plan, classes, preprocess, summary = (json.loads((run / f"{name}.json").read_text()) for name in names)
    assert classes == ["blood", "grass"]
    assert config["settings"]["epochs"] == 3
    assert [step["step"] for step in preprocess] == ["DecodeAdapter", "ResizeAdapter", "NormalizeAdapter"]
    assert plan["segments"] - plan["cut"] == 3
    assert summary["images"] == {"used": 20, "repaired": 0, "rejected": 0}
    assert summary["prefix_forwards"] == 20
    assert summary["golden_difference"] < 1e-6  # 0 on most CPUs
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = ["epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds", "images_per_second"]
    assert all(list(line) == figures for line in lines)
    assert summary["val_accuracy"] == lines[summary["best_epoch"] - 1]["val_accuracy"]
    with safe_open(run / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["visionadapt"])
        assert facts["backbone"] == SMALL_BACKBONE
        assert facts["weights_hash"] == plan["weights_hash"]
        trained = sum(file.get_tensor(key).numel() for key in file.keys() if "feature_" not in key)  # noqa: SIM118
    assert trained == summary["trainable_parameters"]

    code, output = visionadapt("predict", run, data, "--out", tmp_path / "predictions.csv", "--workers", 0)
    assert code == 0, output
    table = rows(tmp_path / "predictions.csv")
    own = ["file", "label", "probability", "abstain", "distance", "problem"]
    assert list(table[0]) == [*own, "probability of blood", "probability of grass"]
    assert len(table) == 20
    for row in table:
        each = {name: float(row[f"probability of {name}"]) for name in classes}
        assert float(row["probability"]) == max(each.values()) == each[row["label"]]
        assert sum(each.values()) == pytest.approx(1)

    code, output = visionadapt("evaluate", run, "--data", data, "--workers", 0)
    assert code == 0, output
    truth = [Path(row["file"]).parent.name for row in table]
    predicted = [row["label"] for row in table]
    measured = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert "16 of these images were trained on" in output
    assert measured["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    assert measured["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)
    matrix = [[int(row[name]) for name in classes] for row in rows(run / "evaluation" / "confusion_matrix.csv")]
    assert matrix == confusion_matrix(truth, predicted).tolist()
    with Image.open(run / "evaluation" / "confusion_matrix.png") as picture:
        assert picture.width > 100


@pytest.mark.slow
def test_what_was_trained_is_what_is_served(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    visionadapt("train", "--data", data, "--out", run, *SMALL, *ADAPTER, "--epochs", 2)
    predictor = va.load(run)
    with safe_open(run / "golden.safetensors", "pt") as file:
        files = [file.get_tensor(f"file_{number}").numpy().tobytes() for number in range(4)]
        pixels, logits = file.get_tensor("pixels"), file.get_tensor("logits")
    again = torch.stack([predictor.prepare.host(data) for data in files])
    assert torch.equal(again, pixels)
    assert torch.allclose(predictor.logits(again), logits, rtol=0, atol=1e-6)
    path = data / "blood" / "0.png"
    picture = Image.open(path)
    kinds = [path, str(path), path.read_bytes(), picture, np.asarray(picture)]
    kinds.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    alone, together = [predictor.predict(kind) for kind in kinds], predictor.predict(kinds)
    for predictions in (alone, together):
        assert {(each.label, each.probabilities) for each in predictions} == {("blood", predictions[0].probabilities)}
    assert alone[0].probabilities == pytest.approx(together[0].probabilities, abs=1e-5)


@pytest.mark.slow
def test_broken_files_are_named_and_the_rest_is_trained_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=20), tmp_path / "run"
    whole = (data / "blood" / "0.png").read_bytes()
    broken = {
        "blood/half.png": whole[: len(whole) // 2],
        "blood/empty.jpg": b"",
        "grass/page.jpg": b"<!doctype html><title>404</title>",
        "grass/=cmd().png": b"\x00" * 99,
    }
    for name, content in broken.items():
        (data / name).write_bytes(content)
    tinted((40, 40), 0, 1).convert("CMYK").save(data / "blood" / "cmyk.jpg")
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    assert code == 0, output
    table = rows(run / "rejected.csv")
    assert {row["file"].removeprefix("'") for row in table} == set(broken)
    assert all(row["reason"] for row in table)
    assert json.loads((run / "summary.json").read_text())["images"] == {"used": 40, "repaired": 1, "rejected": 4}
    assert pq.read_table(run / "ledger.parquet").num_rows == 45
    code, output = visionadapt("predict", run, data, "--out", tmp_path / "out.csv", "--workers", 0)
    assert code == 0, output
    table = rows(tmp_path / "out.csv")
    assert len(table) == 45
    assert sum(row["label"] == "" for row in table) == 4
    assert sum(row["problem"] != "" for row in table) == 4


@pytest.mark.slow
def test_the_folder_s_own_parts_are_used(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    for part in ("train", "validation", "test"):
        tinted_folder(f"parts/{part}", count=6)
    (root / "test" / "sky").mkdir()
    tinted((50, 50), 2, 5).save(root / "test" / "sky" / "1.png")
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", root, "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    assert code == 0, output
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["train_images"], summary["val_images"]) == (12, 12)
    code, output = visionadapt("evaluate", run, "--data", root, "--workers", 0)
    assert code == 0, output
    assert "class 'sky' is unknown" in output
    assert json.loads((run / "evaluation" / "evaluation.json").read_text())["pictures"] == 12
    code, output = visionadapt("evaluate", run, "--data", root / "test" / "..", "--split", "val", "--workers", 0)
    assert code == 0, output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "{missing}"], "no such folder"),
        (["--data", "{data}/blood/0.png"], "is a file"),
        (["--data", "{empty}"], "has no class folders"),
        (["--data", "{hollow}"], "images"),
        (["--data", "{one}"], "one class"),
        (["--data", "{lonely}"], "to validate with"),
        ([], "--data is missing"),
        (["--data", "{data}", "--adapter", "lora(rank=8"], "cannot be read"),
        (["--data", "{data}", "--adapter", "lra"], "did you mean 'lora'"),
        (["--data", "{data}", "--adapter", "lora(rnk=8)"], "did you mean 'rank'"),
        (["--data", "{data}", "--adapter", "lora(rank=0)"], "rank"),
        (["--data", "{data}", "--adapter", "bottleneck(blocks=last:99)"], "blocks"),
        (["--data", "{data}", "--resize", "crup"], "did you mean 'crop'"),
        (["--data", "{data}", "--resize", "crop(32)"], "--image-size"),
        (["--data", "{data}", "--augment", "lite"], "augment"),
        (["--data", "{data}", "--val", "1.5"], "--val"),
        (["--data", "{data}", "--target-precision", "95"], "--target-precision"),
        (["--data", "{data}", "--epochs", "0"], "--epochs"),
        (["--data", "{data}", "--epochs", "many"], "epochs"),
        (["--data", "{data}", "--epoch", "3"], "--epochs"),
        (["--data", "{data}", "--device", "tpu"], "--device"),
        (["--data", "{data}", "--precision", "float16", "--device", "cpu"], "--precision"),
        (["--data", "{data}", "--backbone", "resnet5O"], "did you mean resnet50"),
        (["--data", "{data}", "--weights", "{missing}.pth"], "weights"),
        (["--data", "{data}", "--out", "{one}"], "is there already"),
        (["--data", "{data}", "--out", "{one}", "--overwrite"], "no run folder"),
        (["--data", "{data}", "--out", "{data}/run"], "among the images"),
        (["--resume", "{data}"], "no run folder"),
        (["--resume", "{missing}"], "no run folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    visionadapt: Run,
    tinted_folder: Make,
    tmp_path: Path,
    options: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "hollow/a", "hollow/b"):
        (tmp_path / folder).mkdir(parents=True)
    places = {
        "data": tinted_folder(count=3),
        "one": tinted_folder("one", classes=("only",)),
        "lonely": tinted_folder("lonely", count=1, classes=("single", "solo")),
        **{name: tmp_path / name for name in ("missing", "empty", "hollow")},
    }
    before = sorted(tmp_path.rglob("*"))
    tokens = [option.format(**places) for option in options]
    code, output = visionadapt("train", *tokens, *(SMALL if "--backbone" not in tokens else ()))
    assert code == 2, output
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert sorted(tmp_path.rglob("*")) == before, "a mistake leaves nothing behind"


@pytest.mark.slow
def test_resuming_keeps_the_settings(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    visionadapt("train", "--data", tinted_folder(), "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    code, output = visionadapt("train", "--resume", run)
    assert code == 0
    assert "finished already" in output
    code, output = visionadapt("train", "--resume", run, "--batch-size", 9)
    assert code == 2
    assert "--batch-size cannot be changed" in output


@pytest.mark.slow
def test_a_run_folder_imports_no_code_that_it_names(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = tmp_path / "run", tinted_folder()
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').write_text('')\nAdapter = object\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    visionadapt("train", "--data", data, "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    (run / "summary.json").unlink()
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"adapter": "none"', '"adapter": "trap:Adapter"')
    )
    code, output = visionadapt("train", "--resume", run)
    assert code == 2
    assert "--adapter trap:Adapter" in output
    tensors, facts = read_tensors(run / "model.safetensors")
    write_tensors(run / "model.safetensors", tensors, {**facts, "adapter": "trap:Adapter"})
    code, output = visionadapt("predict", run, data, "--out", tmp_path / "out.csv")
    assert code == 2
    assert "trap:Adapter" in output
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_foreign_run_is_refused_in_one_line(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    visionadapt("train", "--data", data, "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    model = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(model[:100])
    for what in (run, tmp_path / "nothing", data):
        code, output = visionadapt("predict", what, data, "--out", tmp_path / "out.csv")
        assert code == 2
        assert output.count("\n") == 1, output
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_overwriting_replaces_a_whole_run(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tinted_folder()
    arguments = ("train", "--data", data, "--out", run, *SMALL, "--adapter", "none", "--epochs", 1)
    visionadapt(*arguments)
    (run / "leftover").write_text("old")
    code, _ = visionadapt(*arguments, "--overwrite")
    assert code == 0
    assert not (run / "leftover").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
