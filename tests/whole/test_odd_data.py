"""Names, files and folders as they are found in the wild, through the commands from training to prediction."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import images
from visionadapt.errors import RunError, UsageError
from visionadapt.sources import FileSource, FolderSource

from ..conftest import SMALL_BACKBONE, tinted

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0", "--epochs", "1")
CLASSES = ("cafe\u0301", "שלום", "=cmd()", "<b>html", 'quo"te', "line\nbreak", "between\u2028lines", ":dog: [bold]")
LONG = "x" * 200
FILES = ("=1+1.png", "line\nbreak.png", "between\u2028lines\u0085.png", "#1, (copy).png")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos, (1) #a"
    for label, name in enumerate((*CLASSES, LONG)):
        (root / name).mkdir(parents=True)
        for number, file in enumerate(FILES):
            tinted((30 + label, 40 + number), label, number).save(root / name / file)
    return root


def test_odd_names_go_from_training_to_prediction(visionadapt: Run, odd_folder: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.csv"
    code, output = visionadapt("train", "--data", odd_folder, "--out", run, *SMALL)
    assert code == 0, output
    names = {unicodedata.normalize("NFC", name) for name in (*CLASSES, LONG)}
    assert set(json.loads((run / "classes.json").read_text())) == names
    for gone in ("summary.json", "model.safetensors", "checkpoint.safetensors"):
        (run / gone).unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    code, output = visionadapt("evaluate", run, "--data", odd_folder)
    assert code == 0, output
    assert ":dog: [bold]: recall" in output
    assert len(rows(run / "evaluation" / "per_class.csv")) == len(CLASSES) + 1
    code, output = visionadapt("predict", run, odd_folder, "--out", out)
    assert code == 0, output
    assert len(rows(out)) == (len(CLASSES) + 1) * len(FILES)


def test_a_run_stopped_between_model_and_summary_goes_on(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert visionadapt("train", "--data", tinted_folder(count=5), "--out", run, *SMALL)[0] == 0
    model = (run / "model.safetensors").read_bytes()
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert "training images: 8" in output
    assert (run / "model.safetensors").read_bytes() == model
    assert (run / "summary.json").exists()


def test_a_deleted_cache_is_filled_again_on_resume(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    arguments = ("--data", tinted_folder(count=5), "--out", run, "--cache", cache)
    assert visionadapt("train", *arguments, *SMALL)[0] == 0
    shutil.rmtree(cache)
    (run / "summary.json").unlink()
    assert visionadapt("train", "--resume", run)[0] == 0
    assert json.loads((run / "summary.json").read_text())["prefix_forwards"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", ""), "--data is missing"),
        (("--data", "x" * 5000), "File name too long"),
        (("--data", "missing (1)/photos"), "no such folder: missing (1)/photos"),
        (("--out", "{data}/run"), "among the images"),
        (("--cache", "{data}/cache"), "among the images"),
    ],
)
def test_nothing_is_written_among_the_pictures(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    data = tinted_folder(count=2)
    given = {"--data": str(data), "--out": str(tmp_path / "run"), arguments[0]: arguments[1].format(data=data)}
    before = sorted(data.rglob("*"))
    code, output = visionadapt("train", *(word for pair in given.items() for word in pair), *SMALL)
    assert (code, output.count("\n")) == (2, 1)
    assert message in output
    assert sorted(data.rglob("*")) == before
    assert not (tmp_path / "run").exists()


def test_a_batch_size_beyond_the_data_costs_no_memory(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, "--batch-size", 10**9, *SMALL)
    assert code == 0, output


def test_predict_overwrites_nothing_unasked(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run, out = tinted_folder(count=4), tmp_path / "run", tmp_path / "p.csv"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    out.write_text("mine")
    code, output = visionadapt("predict", run, data, "--out", out)
    assert code == 2
    assert str(out) in output and "--overwrite" in output
    assert out.read_text() == "mine"
    assert visionadapt("predict", run, data, "--out", out, "--overwrite")[0] == 0
    assert len(rows(out)) == 8


def test_places_that_cannot_be_written_are_one_line(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run, file = tinted_folder(count=4), tmp_path / "run", tmp_path / "file"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    file.write_text("mine")
    code, output = visionadapt("evaluate", run, "--data", data, "--out", file)
    assert code == 2
    assert "file cannot be made (File exists); give another --out" in output
    code, output = visionadapt("predict", run, data, "--out", "x" * 300 + ".csv")
    assert (code, output.count("\n")) == (2, 1)
    assert "File name too long" in output


def test_a_run_without_a_model_says_what_to_do(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    model = run / "model.safetensors"
    model.unlink()
    with pytest.raises(
        RunError, match=r"has no trained model yet; --resume or finish it \(model\.safetensors is missing\)"
    ):
        va.load(run)
    model.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(RunError, match=r"damaged or no file of visionadapt's"):
        va.load(run)
    (run / "config.json").write_text("3")
    with pytest.raises(RunError, match="is no run folder"):
        va.load(tmp_path / "nowhere")


def test_deep_folders_end_at_the_length_of_a_path(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    here = os.open(root / "a", os.O_RDONLY)
    for _ in range(1050):  # more than Python may call itself
        os.mkdir("ddd", dir_fd=here)
        below = os.open("ddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        found = list(FolderSource(root))
    finally:
        subprocess.run(["rm", "-r", root], check=True)  # shutil.rmtree does not get so deep
    assert [record.problem for record in found] == ["the folder cannot be listed (File name too long)"]


def test_a_file_named_twice_is_one_row(tmp_path: Path) -> None:
    for name in ("cafe\u0301.png", "caf\u00e9.png"):
        tinted((8, 8), 0, 0).save(tmp_path / name)
    records = list(FileSource((tmp_path, tmp_path / "caf\u00e9.png", f"{tmp_path}//./cafe\u0301.png")))
    assert len(records) == len({record.key for record in records}) == len(list(tmp_path.iterdir()))


def test_pictures_of_different_sizes_need_a_resize_adapter(tinted_folder: Make) -> None:
    source = FolderSource(tinted_folder(count=3))
    with pytest.raises(UsageError, match="ResizeAdapter"):
        next(iter(va.loader(source, images.compose(images.NormalizeAdapter()))))


def test_an_empty_batch_stays_empty() -> None:
    for dtype in (torch.uint8, torch.float32):
        normalised = images.NormalizeAdapter()(torch.empty(0, 3, 8, 8, dtype=dtype))
        assert (normalised.shape, normalised.dtype) == ((0, 3, 8, 8), torch.float32)
    with pytest.raises(UsageError, match="NormalizeAdapter"):
        images.NormalizeAdapter()(torch.empty(1, 3, 0, 8))


def test_a_damaged_or_removed_cache_is_one_line(tinted_folder: Make, tmp_path: Path) -> None:
    data, cache = tinted_folder(count=3), tmp_path / "cache"
    train, val = va.split(FolderSource(data))
    model = va.classifier(SMALL_BACKBONE, train.classes, "lora(rank=2)", "none", 32)
    epochs = va.fit(model, train, val, va.preprocessing_for(model), cache=cache, epochs=2)
    next(epochs)
    layout = next(cache.glob("*/layout.json"))
    content = layout.read_text()
    layout.write_text("{")
    with pytest.raises(RunError, match=r"is damaged \(layout\.json"):
        next(va.fit(model, train, val, va.preprocessing_for(model), cache=cache, epochs=2))
    layout.write_text(content)
    shutil.rmtree(cache)
    with pytest.raises(RunError, match="was removed or cut short"):
        next(epochs)


def test_parts_that_do_not_fit_the_model_are_one_line(tinted_folder: Make, tmp_path: Path) -> None:
    source = FolderSource(tinted_folder(count=3))
    model = va.classifier(SMALL_BACKBONE, ("grass", "sky"), "none", "none", 32)
    with pytest.raises(UsageError, match=r"the model's classes are grass, sky, those of .* blood, grass"):
        next(va.fit(model, source, source, va.preprocessing_for(model), cache=tmp_path))
    model = va.classifier(SMALL_BACKBONE, source.classes, None, "none", 32)
    for steps, missing in (((), "ResizeAdapter"), ((images.ResizeAdapter(32),), "NormalizeAdapter")):
        with pytest.raises(UsageError, match=missing):
            next(va.fit(model, source, source, images.compose(*steps), cache=tmp_path))
    assert next(va.fit(model, source, source, va.preprocessing_for(model), cache=str(tmp_path))).epoch == 1
    with pytest.raises(UsageError, match="class 'a' is named 2 times"):
        va.classifier(SMALL_BACKBONE, ("a", "b", "a"), None, "none", 32)


def test_an_evaluation_of_rejected_pictures_alone_has_no_figures(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=3), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    for picture in data.rglob("*.png"):
        picture.write_bytes(b"broken")
    code, output = visionadapt("evaluate", run, "--data", data)
    assert code == 0, output
    assert "images: 0 of 6 rows (6 rejected)" in output
    assert "accuracy: none" in output
    figures = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert (figures["accuracy"], figures["rejected"], figures["absent_classes"]) == (None, 6, ["blood", "grass"])
    assert len(rows(run / "evaluation" / "rejected.csv")) == 6


def test_an_evaluation_replaces_nothing_else(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    before = {path: path.read_bytes() for path in (run / "rejected.csv", run / "config.json")}
    for out in (run, data / "out"):
        code, output = visionadapt("evaluate", run, "--data", data, "--out", out)
        assert (code, output.count("\n")) == (2, 1)
        assert f"--out {out} " in output
    assert {path: path.read_bytes() for path in before} == before
    assert not (data / "out").exists()
    assert visionadapt("evaluate", run, "--data", data, "--slice-by", "label")[0] == 0
    assert (run / "evaluation" / "slices.csv").exists()
    assert visionadapt("evaluate", run, "--data", data)[0] == 0
    assert not (run / "evaluation" / "slices.csv").exists()


def test_an_evaluation_needs_labels(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=4), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SMALL)[0] == 0
    tinted((8, 8), 0, 0).save(tmp_path / "alone.png")
    (tmp_path / "t.csv").write_text("file,label\nalone.png,\n")
    for source in (f"files({data})", f"csv({tmp_path}/t.csv, image=file, label=label)"):
        code, output = visionadapt("evaluate", run, "--data", source)
        assert (code, output.count("\n")) == (2, 1)
        assert "label=" in output and (str(data) in output or "t.csv" in output)
