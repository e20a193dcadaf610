"""What many tests need: small folders of pictures, and a cache of their own."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.system.process import collect_garbage_rarely

from . import forked
from .postgresql import Server, programs, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

gc.disable()  # until all tests are collected: what that imports and makes is no garbage

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
"""On a busy machine a slow example says nothing of the code."""

SMALL_BACKBONE = "test_efficientnet"
"""A real timm model with few weights; random here, since no test may ask the network for them."""


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: tests often wait for others that they started."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each process whole packages of tests, in equal shares, and those with the most slow tests first.

    pytest-xdist divides the tests by their number, in this order. A process that is done takes tests from the end of
    another one's share: quick ones then, so that neither waits for the other, nor makes anew what a package shares.
    """
    shares = getattr(config, "workerinput", {}).get("workercount", 1)
    packages: dict[Path, list[pytest.Item]] = {}
    for item in items:
        packages.setdefault(item.path.parent, []).append(item)
    slow = {place: sum(item.get_closest_marker("slow") is not None for item in own) for place, own in packages.items()}
    places = sorted(packages, key=lambda place: -slow[place])
    items[:] = [item for share in range(shares) for place in places[share::shares] for item in packages[place]]


def pytest_collection_finish() -> None:
    """Leave what has been imported and collected out of every later search for garbage: it stays, and is much."""
    gc.freeze()
    collect_garbage_rarely()  # as every command does
    gc.enable()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of cache folders; `mktemp` for each would look through all earlier ones."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache out of every test."""
    folder = next(_caches)
    folder.mkdir()
    monkeypatch.setenv("VISIONADAPT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell ignores SIGINT for what it starts in the background, and nohup SIGHUP: some tests would wait for ever."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def _unsynchronised() -> Iterator[None]:
    """Wait for no disk: what is written matters to no test after a power failure, and they write thousands of files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_server() -> None:
    """A test that starts processes by `forkserver` itself must not be the one that decides what all later ones find."""
    forked.preload()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The models are tiny, and threads that wait for each other on a busy machine cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of the tests' own."""
    binaries = programs()
    if binaries is None:
        pytest.skip("needs Debian's package postgresql")
    with running(binaries) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first takes least time
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no Chromium; apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visionadapt(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run `visionadapt …`; give the exit code and all that was written to the terminal."""

    def run(*tokens: str | Path) -> tuple[int, str]:
        code = shell.run(app, [str(token) for token in tokens])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def tinted(size: tuple[int, int], colour: int, seed: int) -> Image.Image:
    """A noisy picture of (width, height) in which the channel `colour` is the brightest."""
    pixels = np.random.default_rng(seed).normal(90, 30, (size[1], size[0], 3))
    pixels[..., colour % 3] += 100
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture
def tinted_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make `root/<class>/*.png` of two classes that any backbone tells apart, in mixed sizes."""

    def make(name: str = "data", count: int = 10, classes: tuple[str, ...] = ("blood", "grass")) -> Path:
        root = tmp_path / name
        for label, class_name in enumerate(classes):
            (root / class_name).mkdir(parents=True)
            for index in range(count):
                size = (60 + 7 * index % 40, 90 - 5 * index % 40)
                tinted(size, label, 1000 * label + index).save(root / class_name / f"{index}.png")
        return root

    return make
