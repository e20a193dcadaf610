"""Folders as people have them, through the train command: each run is right, or ends before the work begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import tinted
from .test_odd_data import SMALL, Make, Run, rows

pytestmark = pytest.mark.slow


def test_a_class_with_one_image_trains_and_is_named(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=5)
    (data / "bird").mkdir()
    tinted((40, 40), 2, 7).save(data / "bird" / "0.png")
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL)
    assert code == 0, output
    assert "to validate bird with" in output
    assert json.loads((run / "classes.json").read_text()) == ["bird", "blood", "grass"]
    code, output = visionadapt("evaluate", run, "--data", data)
    assert code == 0, output


def test_a_class_without_a_readable_image_ends_before_the_run_folder(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data = tinted_folder(count=5)
    for path in (data / "grass").iterdir():
        path.write_bytes(b"")
    code, output = visionadapt("train", "--data", data, "--out", tmp_path / "run", *SMALL)
    assert code == 2 and "grass" in output
    assert not (tmp_path / "run").exists()


def test_other_names_of_splits_and_sidecars_are_told(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    for name in ("data/Training", "data/Testing"):
        folder = tinted_folder(name, count=4)
        (folder / "grass" / "0.txt").write_text("a box")
    (tmp_path / "data" / "Training" / "grass" / "1.png").write_bytes(b"")
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", tmp_path / "data", "--out", run, *SMALL)
    assert code == 0, output
    assert "Training is train, Testing is test" in output and "2 .txt" in output
    assert [row["file"] for row in rows(run / "rejected.csv")] == ["Training/grass/1.png"]
    code, output = visionadapt("evaluate", run, "--data", tmp_path / "data")
    assert code == 0 and "8 images of test" in output


def test_followed_links_are_remembered_by_the_run(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=5)
    (tmp_path / "linked").mkdir()
    for path in data.iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path, target_is_directory=True)
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", tmp_path / "linked", "--out", run, *SMALL)
    assert code == 2 and "follow_links=True" in output and not run.exists()
    code, output = visionadapt("train", "--data", f"folder({tmp_path}/linked, follow_links=true)", "--out", run, *SMALL)
    assert code == 0, output
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
