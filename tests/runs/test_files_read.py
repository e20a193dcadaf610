"""Which files of a run folder each command reads: whoever adds one decides here what a text in it may do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SETTINGS = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", 32, "--workers", 0, "--epochs", 2),
    *("--adapter", "bottleneck(rank=2, blocks=last:1)", "--patience", 0, "--max-minutes", 0.00001),
)
OPENED: list[set[str]] = []
"""The files opened for reading meanwhile."""

TRAINED = {"classes.json", "preprocess.json", "model.safetensors", "plan.json", "golden.safetensors"}
CALIBRATION = {"calibration.json", "calibration.safetensors"}
RESULTS = {"config.json", "metrics.jsonl", "summary.json", "validation/evaluation.json"}
STATE = {"checkpoint.safetensors", "ledger.parquet", "spent.json"}
READ = {
    "finish": TRAINED | CALIBRATION | RESULTS | STATE,
    "train": TRAINED | CALIBRATION | RESULTS | STATE,
    "predict": TRAINED | CALIBRATION,
    "evaluate": TRAINED | CALIBRATION | RESULTS | {"ledger.parquet"},  # its page compares with the validation
    "report": TRAINED | CALIBRATION | RESULTS | {"ledger.parquet"},
    "runs": RESULTS,
}
"""Beside what libraries open without Python: `validation/predictions.parquet` for `report`, and headers for `runs`."""


def _note(event: str, args: tuple[Any, ...]) -> None:
    if OPENED and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        mode, flags = args[1], args[2]
        if (isinstance(mode, str) and "r" in mode) or (mode is None and not flags & (os.O_WRONLY | os.O_CREAT)):
            OPENED[-1].add(os.fsdecode(args[0]))


@contextmanager
def opened(folder: Path) -> Iterator[set[str]]:
    """Yield a set that holds the files below a folder that were opened for reading, by relative path, at the end."""
    if not hasattr(sys, "_visionadapt_tests_note"):
        sys._visionadapt_tests_note = True  # type: ignore[attr-defined]
        sys.addaudithook(_note)  # which cannot be removed, and notes nothing outside of this block
    found: set[str] = set()
    OPENED.append(set())
    try:
        yield found
    finally:
        paths = [Path(path) for path in OPENED.pop()]
        found.update(path.relative_to(folder).as_posix() for path in paths if path.is_relative_to(folder))
        folders = {path.relative_to(folder).as_posix() for path in (folder, *folder.rglob("*")) if path.is_dir()}
        found.difference_update(folders)  # which are opened to sync them


@pytest.mark.slow
def test_the_files_that_commands_read(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(count=6), tmp_path / "run"
    assert visionadapt("train", "--data", data, "--out", run, *SETTINGS)[0] == 0
    commands: dict[str, tuple[object, ...]] = {
        "finish": (run,),
        "train": ("--resume", run),
        "predict": (run, data, "--out", tmp_path / "table.csv", "--workers", 0),
        "evaluate": (run, "--data", data, "--workers", 0),
        "report": (run,),
        "runs": (tmp_path,),
    }
    for name, words in commands.items():
        with opened(run) as files:
            code, output = visionadapt(name, *words)
        assert code == 0, output
        assert files == READ[name], name
