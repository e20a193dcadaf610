"""Runs to report on: trained once, on images with hostile file and class names."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.conftest import SMALL_BACKBONE, tinted
from visionadapt.commands.training_run import train
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.options import RunOptions

CLASSES = (
    "</td></table><script>alert('class')</script>",
    "=cmd|'/C calc'!A0 $x^2$ & \"quoted\"",
    "two\nlines \u202eevil\u2069 {{ 7 * 7 }}",
)
FILES = ("<b onmouseover=alert(1)>.png", "new\nline\u2028.png", "\u202egnp.exe", "a&amp;b'\"{% raw %}.png")


def trained(data: str, folder: Path, **settings: object) -> Path:
    """Train only the head of a small model; return the run folder."""
    options = RunOptions(
        data=data,
        out=str(folder / "<i>run & more"),
        backbone=SMALL_BACKBONE,
        weights="none",
        adapter="none",
        cache=str(folder / "cache"),
    )
    return train(options, TrainingSettings(**{"epochs": 2, "workers": 0, "head": "trained", **settings}))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 3 classes of 20 images, with a broken file, and one image in two classes."""
    folder = tmp_path_factory.mktemp("hostile")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for index in range(60):
            name = FILES[index % 4] if index < 4 else f"{index}.png"
            tinted((40 + index, 90 - index), index % 3 if index % 7 else index, index).save(folder / name, "PNG")
            table.writerow([name, CLASSES[index % 3]])
        (folder / "<u>broken.png").write_bytes(b"<script>alert('bytes')</script>")
        table.writerow(["<u>broken.png", CLASSES[0]])
        (folder / "copy.png").write_bytes((folder / "10.png").read_bytes())
        table.writerow(["copy.png", CLASSES[0]])
    return trained(f"csv({folder / 'labels.csv'}, image=image, label=label)", folder)
