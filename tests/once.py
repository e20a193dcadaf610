"""What is expensive to make, made once for all processes of pytest-xdist that run the tests together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from visionadapt.system.locks import lock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of a name, which the first process that asks for it fills by `make`; the others wait for it.

    The tests must only read what is in it.
    """
    together = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder of its own in that of all
        together = together.parent
    folder, complete = together / name, together / f"{name}.complete"
    with (together / f"{name}.lock").open("w") as file:
        lock(file)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
