"""The numbers behind the charts and tables of a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionadapt.auditing.resizing import effect
from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.images import ResizeAdapter
from visionadapt.report import figures, svg_charts
from visionadapt.report.embedded_images import ImageReader
from visionadapt.report.ledger_summary import summarise_ledger
from visionadapt.report.run_contents import RunContents, ValidationPredictions
from visionadapt.runs.ledger import write_ledger
from visionadapt.sources import FileSource, FolderSource

LIMITS = st.floats(-1e6, 1e6)


@pytest.mark.slow
@given(st.lists(LIMITS, min_size=1, max_size=50))
def test_every_value_is_between_the_axes_and_between_labelled_ticks(values: list[float]) -> None:
    chart = svg_charts.curves("loss", [("training", "one", values)], chosen=1, share=False)
    heights = [y for line in chart.lines for _, y in line.points]
    bottom, top = chart.y_ticks[0].at, chart.y_ticks[-1].at
    assert all(top - 0.1 <= y <= bottom + 0.1 for y in heights)
    assert 2 <= len(chart.y_ticks) <= 9
    assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks) or max(map(abs, values)) > 1e4
    assert chart.x_ticks[0].text == "1" and chart.x_ticks[-1].text == str(len(values))
    assert len(chart.x_ticks) <= 7


@pytest.mark.parametrize(
    ("policy", "size", "cut", "padded", "stretched"),
    [
        ("crop", (400, 200), 0.5, 0.0, 0.0),
        ("letterbox", (400, 300), 0.0, 0.25, 0.0),
        ("squash", (400, 200), 0.0, 0.0, 1.0),
        ("crop", (224, 224), 0.0, 0.0, 0.0),
    ],
)
def test_the_effect_of_resizing_is_measured_on_upright_images(
    tmp_path: Path, policy: str, size: tuple[int, int], cut: float, padded: float, stretched: float
) -> None:
    Image.new("RGB", size).save(tmp_path / "image.png")
    turned = Image.new("RGB", size[::-1])
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    source = FileSource(tmp_path)
    keys = [record.key for record in source]
    sizes = [ImageReader(source, keys).upright_size(key) for key in keys]
    assert sizes == [size[::-1], size[::-1]]
    for found in sizes:
        assert found is not None
        one = effect(ResizeAdapter(224, policy=policy), *found)  # type: ignore[arg-type]
        assert (one.cut, one.padded, one.stretched) == pytest.approx((cut, padded, stretched), abs=0.01)


def test_copies_are_grouped_by_the_harm_they_do(tmp_path: Path, tinted_folder: Callable[..., Path]) -> None:
    source = FolderSource(tinted_folder())
    train = Manifest(source, [Record("a", ("blood",)), Record("b", ("blood",)), Record("c", ("grass",))])
    val = Manifest(source, [Record("d", ("blood",)), Record("e", ("grass",))])
    same, other = "00" * 32, "11" * 32
    findings = [Finding(0, same), Finding(1, same), Finding(2, same)], [Finding(0, same), Finding(1, other)]
    write_ledger(tmp_path, {"train": (train, findings[0]), "val": (val, findings[1])})
    rows = summarise_ledger(tmp_path)
    assert rows is not None
    assert {what.partition(":")[0]: kind.examples for what, kind in rows.suspicious.items()} == {
        "equal files within a split": [("b", "a")],
        "equal files with different classes": [("c", "a")],
        "equal files in training and validation": [("d", "a")],
    }
    assert rows.training_images == {"blood": 2, "grass": 1}


def test_a_large_confusion_matrix_shows_the_classes_that_are_confused_most(tmp_path: Path) -> None:
    """30 classes; class 7 is taken for class 3 in 4 of 6 images and for class 9 in one, class 20 for class 21 once."""
    truth = [place for place in range(30) for _ in range(6)]
    predicted = list(truth)
    predicted[42:47] = [3, 3, 3, 3, 9]
    predicted[120] = 21
    probabilities = np.eye(30)[predicted]
    predictions = ValidationPredictions(
        tuple(map(str, range(180))), np.array(truth), np.array(predicted), probabilities
    )
    classes = tuple(f"c{place}" for place in range(30))
    run = RunContents(tmp_path, {}, {}, {}, (), classes, None, {}, predictions)
    found = figures.confusions(run)
    assert found is not None and found.reduced
    assert found.classes == ("c3", "c7", "c9", "c20", "c21")
    counts = [[cell.count for cell in row] for row in found.rows]
    assert counts == [
        [6, 0, 0, 0, 0, 0],
        [4, 1, 1, 0, 0, 0],
        [0, 0, 6, 0, 0, 0],
        [0, 0, 0, 5, 1, 0],
        [0, 0, 0, 0, 6, 0],
    ]
    assert found.pairs[0] == ("c7", "c3", 4, pytest.approx(4 / 6))
    assert found.rows[1][0].level == 5 and found.rows[0][0].level == 6  # 67 % is up to 80 %, 100 % above it
