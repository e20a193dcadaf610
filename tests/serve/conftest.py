"""Small runs to serve: three on one backbone, with different adapters, and one that shares nothing with them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.conftest import tinted
from tests.export.conftest import saved_run
from visionadapt.serve.app import application
from visionadapt.serve.limits import Limits
from visionadapt.serve.runs import ServedRuns, open_runs

ADAPTERS = {"probe": None, "lora": "lora(rank=2, blocks=last:2)", "bottleneck": "bottleneck(rank=2, blocks=last:1)"}
LIMITS = Limits(max_bytes=200_000, max_pixels=20_000, max_files=4, seconds=20, max_requests=8)


def image(number: int, size: tuple[int, int] = (60, 44), form: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    tinted(size, number, number).save(file, form)
    return file.getvalue()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders by name."""
    root = tmp_path_factory.mktemp("served")
    found = {name: saved_run(root / name, adapter=adapter) for name, adapter in ADAPTERS.items()}
    return {**found, "tags": saved_run(root / "tags", task="multilabel", adapter=None)}


@pytest.fixture(scope="session")
def served(folders: dict[str, Path]) -> ServedRuns:
    """The three runs on one backbone."""
    return ServedRuns(open_runs([str(folders[name]) for name in ADAPTERS], "cpu", None), LIMITS.max_pixels)


@pytest.fixture
def client(served: ServedRuns) -> Iterator[TestClient]:
    """A client of an application that serves them."""
    with TestClient(application(served, LIMITS), base_url="http://localhost") as client:
        yield client
