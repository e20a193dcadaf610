"""Run folders that a stranger has edited: nothing is executed, sent or written elsewhere, and errors are one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .. import forked

SEEDS = [0, 7, 11, 16, 29, 38, 44, 45, 53, 56, 78]
"""All but the first once ended in a traceback."""


@pytest.mark.slow
def test_edited_run_folders_do_no_harm(tmp_path: Path) -> None:
    """Some of the cases that `benchmarks/reliability.py` runs; in a process of its own, since audit hooks stay."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked.run("tests.whole.edited_runs", str(tmp_path / "place"), *map(str, SEEDS), environment=environment)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [case["seed"] for case in found] == SEEDS, done.stderr
    for case in found:
        assert not case["harm"] and not case["tracebacks"], case
        assert set(case["codes"].values()) <= {0, 2}, case
    assert done.returncode == 0
