"""The numbers behind the charts and tables of a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.images import ResizeAdapter
from visionadapt.reporting import svg_charts
from visionadapt.reporting.embedded_images import Pictures, measure
from visionadapt.reporting.ledger_summary import read_rows
from visionadapt.run_folder.ledger import write_ledger
from visionadapt.sources import FileSource, FolderSource

LIMITS = st.floats(-1e6, 1e6)


@given(st.lists(LIMITS, min_size=1, max_size=50))
def test_every_value_lies_between_the_axes_and_between_labelled_ticks(values: list[float]) -> None:
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
        ("crop", (400, 200), 0.5, 0.0, 1.0),
        ("letterbox", (400, 300), 0.0, 0.25, 1.0),
        ("squash", (400, 200), 0.0, 0.0, 2.0),
        ("crop", (224, 224), 0.0, 0.0, 1.0),
    ],
)
def test_what_resizing_does_is_worked_by_hand(
    tmp_path: Path, policy: str, size: tuple[int, int], cut: float, padded: float, stretched: float
) -> None:
    Image.new("RGB", size).save(tmp_path / "picture.png")
    turned = Image.new("RGB", size[::-1])
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    source = FileSource(tmp_path)
    keys = [record.key for record in source]
    found = measure(Pictures(source, frozenset(keys)), ResizeAdapter(224, policy=policy), keys)  # type: ignore[arg-type]
    assert [one.size for one in found] == [size, size]
    for one in found:
        assert (one.cut, one.padded, one.stretched) == pytest.approx((cut, padded, stretched), abs=0.01)


def test_copies_are_told_by_what_is_wrong_with_them(tmp_path: Path, tinted_folder: Callable[..., Path]) -> None:
    source = FolderSource(tinted_folder())
    train = Manifest(source, [Record("a", ("blood",)), Record("b", ("blood",)), Record("c", ("grass",))])
    val = Manifest(source, [Record("d", ("blood",)), Record("e", ("grass",))])
    same, other = "00" * 32, "11" * 32
    findings = [Finding(0, same), Finding(1, same), Finding(2, same)], [Finding(0, same), Finding(1, other)]
    write_ledger(tmp_path, {"train": (train, findings[0]), "val": (val, findings[1])})
    rows = read_rows(tmp_path)
    assert rows is not None
    assert {what.partition(":")[0]: kind.examples for what, kind in rows.suspicious.items()} == {
        "equal files within a part": [("b", "a")],
        "equal files under different classes": [("c", "a")],
        "equal files in training and validation": [("d", "a")],
    }
    assert rows.training_pictures == {"blood": 2, "grass": 1}
