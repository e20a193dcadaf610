"""A process keeps the memory that its tensors leave, decodes in threads, and changes nobody's warnings."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from visionadapt.data.dataset import Rows
from visionadapt.data.loading import samples
from visionadapt.images.decoder_globals import strict_decoders

GLIBC = sys.platform == "linux"
FAULTS = """
import os, resource, sys, threading, torch
from visionadapt.system.devices import choose_device
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    x = torch.ones(16, 1024, 1024)
    for _ in range(8):
        y = x + 1
        del y
    before = faults()
    for _ in range(8):
        y = x + 1
        del y
    print(faults() - before)
def told():
    choose_device("cpu")
    work()
for thread in sys.argv[1:]:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    if thread == "first":
        told()
    elif thread == "later":
        choose_device("cpu")
        threading.Thread(target=work).start()
    else:
        threading.Thread(target=told).start()
    break
"""


def page_faults(*threads: str, **environment: str) -> list[int]:
    """New pages that eight results of 64 MiB take, once there have been some; in a fork for each of `threads`.

    It computes them: the process's `first` one; one that starts after the process was told to keep freed memory
    (`later`), or `before`.
    """
    command = [sys.executable, "-c", FAULTS, *threads]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="glibc alone can be told")
def test_a_tensor_gets_the_pages_that_the_last_one_left_unless_the_environment_says_otherwise() -> None:
    """The first few results may find the free blocks a little too small; those behind them take no new page."""
    (as_told,) = page_faults("first", OMP_NUM_THREADS="1", MALLOC_TRIM_THRESHOLD_="131072")
    first, later = page_faults("first", "later", OMP_NUM_THREADS="1")
    (before,) = page_faults("before", OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
    assert max(first, later, before) < as_told / 3


COMMAND = """
import os, sys
assert "torch" not in sys.modules
before = dict(os.environ)
import visionadapt
from visionadapt.commands import shell
assert dict(os.environ) == before
class End:
    def find_spec(self, name, path=None, target=None):
        if name == "torch._C": os._exit(0)  # by then, torch has loaded the libraries that it needs
def work() -> None:
    sys.meta_path.insert(0, End())
    import torch
parser = shell.app("work", about="Load torch.")
parser.default(work)
shell.main(parser)
"""


def spins(**environment: str) -> str:
    """How long a thread of a command waits in a busy loop, as GNU's OpenMP tells when torch loads it."""
    given = {"OMP_DISPLAY_ENV": "verbose", **environment}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=given, capture_output=True, text=True, check=True)
    return next((line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line), "")


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="GNU's OpenMP alone is told")
def test_threads_of_a_command_sleep_soon_unless_the_environment_says_otherwise() -> None:
    assert spins() == "3000"
    assert spins(GOMP_SPINCOUNT="77") == "77"
    assert int(spins(OMP_WAIT_POLICY="active")) > 10**9


@dataclass(frozen=True)
class Slow(Rows[int]):
    """Rows that take a while, the early ones longer; which threads open and decode them is noted."""

    threads: list[tuple[str, int]]
    alone: bool = False

    def __len__(self) -> int:
        return 40

    @property
    def one_by_one(self) -> bool:
        return self.alone

    def opened(self, index: int) -> Callable[[], int]:
        self.threads.append(("open", threading.get_ident()))
        return lambda: self.decoded(index)

    def decoded(self, index: int) -> int:
        self.threads.append(("decode", threading.get_ident()))
        time.sleep((40 - index) * 1e-4)
        if index == 39:
            raise KeyError(index)
        return index


@pytest.mark.parametrize("alone", [False, True])
def test_threads_keep_the_order_and_raise_in_their_turn(alone: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        rows, found = Slow([], alone), list[int]()
        with pytest.raises(KeyError):
            for row in samples(rows):
                found.append(row)
    finally:
        torch.set_num_threads(before)
    used = {name: {thread for what, thread in rows.threads if what == name} for name in ("open", "decode")}
    assert found == list(range(39))
    assert used["open"] == {threading.get_ident()}
    assert (used["decode"] == {threading.get_ident()}) == alone


def test_rows_come_in_the_order_asked_for() -> None:
    order = [5, 3, 30, 0]
    assert list(samples(Slow([]), order=order)) == order


def test_warning_filters_come_back_whichever_thread_leaves_last() -> None:
    before = list(warnings.filters)
    first_is_in, second_is_in = threading.Event(), threading.Event()

    def first() -> None:
        with strict_decoders:
            first_is_in.set()
            second_is_in.wait(5)

    def second() -> None:
        first_is_in.wait(5)
        with strict_decoders:
            second_is_in.set()
            other.join(5)
            warnings.warn("nobody hears this", stacklevel=1)

    other = threading.Thread(target=first)
    last = threading.Thread(target=second)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        inside = list(warnings.filters)
        other.start()
        last.start()
        last.join(10)
        assert list(warnings.filters) == inside
    assert not heard
    assert list(warnings.filters) == before


LEAVES = """
import atexit, sys, threading, time
from visionadapt.system.process import leave
atexit.register(print, "at the end")
def work():
    time.sleep(0.3)
    print("a thread is done", flush=True)
if sys.argv[2] == "thread":
    threading.Thread(target=work).start()
print("buffered", end=" ")
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 2, 130])
def test_leaving_keeps_the_code_the_output_and_what_waits_for_the_end(code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES, str(code), "alone"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "buffered at the end\n", "")


def test_leaving_waits_for_a_thread_that_is_at_work() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES, "2", "thread"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "a thread is done" in done.stdout
    assert "at the end" in done.stdout
