"""The benchmark that is meant for a GPU runs to its end on a CPU, and what it writes can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

device = pytest.importorskip("benchmarks.device", reason="the benchmarks lie in the repository, not in the package")


def test_the_device_benchmark(tinted_folder: Callable[..., Path], tmp_path: Path) -> None:
    device.main(tinted_folder(), tmp_path / "page.md", "cpu", ["test_efficientnet"], ["none"], "none")
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| test_eff")]
    assert [row.split("|")[3].strip() for row in rows] == ["frozen pass", "epoch"]
    for row in rows:
        real, made_up = (int(cell) for cell in row.split("|")[5:7])
        assert real > 0
        assert made_up > 0
