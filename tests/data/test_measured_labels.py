"""Labels that are measurements are refused, and classes that are numbers are not."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

import visionadapt
from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.data.splits import folds, split
from visionadapt.errors import SplitError, UsageError
from visionadapt.sources import FolderSource, TableSource

PRICES = [f"{4 + 0.37 * row:.2f}" for row in range(60)]
AGES = [str(18 + row * 7 % 53) for row in range(60)]


def table(folder: Path, labels: Sequence[str]) -> TableSource:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f"{row}.png", label) for row, label in enumerate(labels))])
    for row in range(len(labels)):
        (folder / f"{row}.png").touch()
    return TableSource(folder / "labels.csv", "file", "label")


@pytest.mark.parametrize("labels", [PRICES, AGES, ["0,5", "1,7", "3,2"], ["0.5", "0.7", "1e-3"]])
def test_measurements_are_refused_before_any_work(tmp_path: Path, labels: list[str]) -> None:
    source = table(tmp_path, labels)
    for divide in (split, folds):
        with pytest.raises(SplitError) as error:
            divide(source)
        told = str(error.value)
        assert f"{len(set(labels))} different numbers" in told and f"of {len(labels)} images" in told
        assert "--task single" in told and "\n" not in told


@pytest.mark.parametrize(
    "labels",
    [
        [str(row % 10) for row in range(40)],  # digits
        [f"{row % 12}.0" for row in range(40)],  # class numbers of a column with gaps, as pandas writes them
        [("0.1", "0.5", "2.5")[row % 3] for row in range(30)],  # doses
        [f"{row % 5}.5" for row in range(60)],
        [f"part {row % 25}" for row in range(50)],
    ],
)
def test_classes_that_are_numbers_are_classes(tmp_path: Path, labels: list[str]) -> None:
    train, val = split(table(tmp_path, labels))
    assert len(train) + len(val) == len(labels)


def test_the_word_of_the_user_counts_and_that_of_folders(tmp_path: Path) -> None:
    source = table(tmp_path, [price for price in PRICES[:20] for _ in range(2)])
    with pytest.raises(SplitError, match="measurements"):
        split(source)
    assert len(split(source, task="single")[0]) == 20
    for name in PRICES[:20]:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "photos" / name / f"{number}.png").touch()
    assert len(split(FolderSource(tmp_path / "photos"))[0]) == 20


@pytest.mark.parametrize("task", ["regression", "ordinal", "detection"])
def test_another_task_is_refused_by_name(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(app, ["train", str(tmp_path), "--task", task]) == 2
    told = capsys.readouterr().err
    assert f"--task {task}" in told and "classifiers" in told and told.count("\n") == 1
    with pytest.raises(UsageError, match="classifiers"):
        visionadapt.train(tmp_path, task=task)
