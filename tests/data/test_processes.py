"""Worker processes: killed, crashed, without shared memory, started by a script without a guard."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from visionadapt.data.dataset import Rows
from visionadapt.data.loading import samples
from visionadapt.data.processes import in_processes
from visionadapt.errors import SourceError, UsageError, VisionAdaptError

from .. import forked
from ..conftest import tinted

ROOT = Path(__file__).parents[2]
MAIN = os.getpid()


@dataclass(frozen=True)
class Numbers(Rows[torch.Tensor]):
    """Rows of which one does harm where a worker process reads it."""

    harmful: int = -1
    harm: Callable[[], object] = int

    def __len__(self) -> int:
        return 200

    def opened(self, index: int) -> Callable[[], torch.Tensor]:
        if index == self.harmful and os.getpid() != MAIN:
            self.harm()
        return lambda: torch.full((3, 5), index, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def die(number: int) -> Callable[[], object]:
    def end() -> None:
        faulthandler.disable()  # pytest's would print every module
        os.kill(os.getpid(), number)

    return end


def refuse() -> None:
    raise UsageError("the row is refused")


def fail_oddly() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    raise OddError(1, 2)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("order", [None, range(199, -1, -3), [5, 0, 5]])
def test_rows_come_in_order(workers: int, order: list[int] | None) -> None:
    found = list(samples(Numbers(), workers, order))
    assert [int(row[2, 4]) for row in found] == list(range(200) if order is None else order)
    assert all(row.shape == (3, 5) and row.dtype == torch.uint8 for row in found)
    found[0].add_(1)


def test_few_rows_start_few_processes_and_a_reader_may_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(in_processes(Numbers(), [], 4)) == []
    reading = in_processes(Numbers(), range(10), 8)
    next(reading)
    assert len(multiprocessing.active_children()) == 2
    reading.close()


@pytest.mark.parametrize("harmful", [0, 7, 8, 50, 199])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ended_by_the_system_is_replaced_by_threads(
    harmful: int, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    found = list(samples(Numbers(harmful, die(number)), 2))
    assert [int(row[0, 0]) for row in found] == list(range(200))
    assert time.monotonic() - started < 30
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert number.name in record.getMessage() and "--workers 0" in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_crash_names_the_rows(number: signal.Signals) -> None:
    with pytest.raises(SourceError, match=rf"{number.name}.* row 50,"):
        list(samples(Numbers(50, die(number)), 2))


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "kind"), [(refuse, UsageError), (fail_oddly, RuntimeError)])
def test_an_error_comes_in_its_turn_with_its_traceback(harm: Callable[[], None], kind: type[Exception]) -> None:
    reading = samples(Numbers(20, harm), 2)
    assert [int(next(reading)[0, 0]) for _ in range(20)] == list(range(20))
    with pytest.raises(kind) as caught:
        next(reading)
    assert harm.__name__ in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert not isinstance(caught.value, VisionAdaptError) or "\n" not in str(caught.value)


def test_without_processes_threads_read(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def none_left(self: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", none_left)
    assert len(list(samples(Numbers(), 2))) == 200
    assert "unavailable" in caplog.text and "--workers 0" in caplog.text


SCRIPT = """
import logging, multiprocessing, sys, pathlib
logging.basicConfig(format="%(message)s")
multiprocessing.set_start_method(sys.argv[1], force=True)
from visionadapt import images, sources
from visionadapt.data.dataset import ImageDataset
from visionadapt.data.loading import samples
from visionadapt.sources.opening import manifest_of
prepare = images.compose(images.ResizeAdapter(32, policy="squash"))
def read():
    dataset = ImageDataset(manifest_of(sources.FileSource("photos")), prepare, images.augmentation("none"))
    print([sample.finding.index for sample in samples(dataset, 1)])
"""
GUARDS = {True: "if __name__ == '__main__':\n    read()\n", False: "read()\n"}


def photos(folder: Path) -> None:
    (folder / "photos").mkdir()
    for number in range(12):
        tinted((20, 20), number, number).save(folder / "photos" / f"{number:02}.png")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "guarded"), [("spawn", True), ("spawn", False), ("forkserver", False)])
def test_other_ways_to_start_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, guarded: bool
) -> None:
    photos(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT + GUARDS[guarded])
    monkeypatch.chdir(tmp_path)
    done = forked.run(str(tmp_path / "script.py"), method, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (0, f"{list(range(12))}\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (0 if guarded else 1)
    assert guarded or ("--workers 0" in done.stderr)


TINY = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from visionadapt.data.dataset import Rows
from visionadapt.data.loading import samples
class Large(Rows):
    def __len__(self):
        return 64
    def opened(self, index):
        return lambda: torch.ones(2**20, dtype=torch.uint8)
print(sum(int(row.sum()) for row in samples(Large(), 2)))
"""
"""Rows of a megabyte each."""


@pytest.mark.slow
def test_a_small_shared_memory_does_not_matter() -> None:
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    allowed = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    small = ["unshare", "-m", "sh", "-c", f'{mount}; exec "$0" "$@"'] if allowed else []
    done = subprocess.run(
        [*small, sys.executable, "-c", TINY, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{64 * 2**20}\n", "")
