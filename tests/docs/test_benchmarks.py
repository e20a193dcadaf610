"""Benchmarks run to their end on a small case, and what they write can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REASON = "the benchmarks lie in the repository, not in the package"
device = pytest.importorskip("benchmarks.device", reason=REASON)
architectures = pytest.importorskip("benchmarks.architectures", reason=REASON)


def test_the_device_benchmark(tinted_folder: Callable[..., Path], tmp_path: Path) -> None:
    device.main(tinted_folder(), tmp_path / "page.md", "cpu", ["test_efficientnet"], ["none"], "none")
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| test_eff")]
    assert [row.split("|")[3].strip() for row in rows] == ["frozen pass", "epoch"]
    for row in rows:
        real, made_up = (int(cell) for cell in row.split("|")[5:7])
        assert real > 0
        assert made_up > 0


def test_the_benchmark_of_architectures_measures_the_smallest_name_of_each() -> None:
    large, small, other = (
        {"name": name, "class": "vit.ViT", "modules": modules, "parameters": parameters}
        for name, modules, parameters in (("large", ["Mlp"], 9), ("small", ["Mlp"], 5), ("other", ["Mlp", "Gate"], 7))
    )
    chosen = architectures.choose([large, small, other, {**large, "name": "huge", "parameters": 10**9}])
    assert [(line["name"], line["names"]) for line in chosen] == [("small", 2), ("other", 1)]
    found = architectures.measure("test_efficientnet")
    assert found["equal"] and found["blocks"] >= 4 and found["lora"]["merged"] <= 1e-5
    assert architectures.faults(found) == []
    text = architectures.page([{**chosen[0], **found}], chosen)
    assert "1 of 1 measured architectures" in text
    without = {**found["lora"], "without_gradient": 3}
    assert architectures.faults({**found, "lora": without, "equal": False}) == [
        "its parts do not give its own features",
        "lora: 3 parameters have no gradient",
    ]
