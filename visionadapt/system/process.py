"""Tune the current process: garbage collection, memory reuse, exit, and OpenMP threads."""

from __future__ import annotations

import atexit
import ctypes
import gc
import multiprocessing
import os
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Numbers of the parameters in glibc's malloc.h."""
ONE_ARENA = "MALLOC_ARENA_MAX"
"""Variable that limits glibc's arenas from the start of a process, for where a thread is there before this package."""
_LARGEST_BLOCK = 2**30
"""Largest block, in bytes, that is reused by the process; larger ones are returned to the system."""
_NEVER = 2**31 - 1
STARTS_AGAIN = 71
"""Exit code of a worker process that ran the user's script again; see `check_not_starting`."""
_SPINS = "3000"
"""Turns of the busy loop in which a thread waits before it sleeps; fewer are slower on an idle machine."""


@cache
def keep_freed_memory() -> bool:
    """Reuse freed memory for the next tensors; return whether the C library supports it.

    By default glibc returns every block above 32 MiB to the system, which zeroes each page before it provides it again.
    A forward pass of lite0 on 32 images with two threads in eager float32: 87 images/s with that default, 228 images/s
    without. The process stays at its largest size. Settings in the environment (`MALLOC_…`, `GLIBC_TUNABLES`) win.

    Threads that are started later take their memory from the same arena: one of their own holds no block above 64 MiB,
    so that such blocks are returned all the same, and forward passes in a thread take a tenth more time.
    """
    given = {name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"}
    if given - {ONE_ARENA}:
        return False
    with suppress(OSError, AttributeError, TypeError):  # TypeError on Windows
        mallopt = ctypes.CDLL(None).mallopt
        if not given:
            mallopt(_ARENA_MAX, 1)
        return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, _NEVER))
    return False


def reset_peak_memory() -> None:
    """Begin anew to measure the largest memory of this process, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the largest resident memory of this process in bytes since `reset_peak_memory`; None if not known."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def collect_garbage_rarely() -> None:
    """Collect garbage after a million new objects, not after some hundreds.

    The objects of torch and timm live until exit: importing them takes 1.6 s instead of 2.2 s.
    """
    gc.set_threshold(1_000_000, 20, 20)


def wait_asleep() -> None:
    """Let OpenMP threads that wait for each other sleep soon, unless the environment says how they wait.

    GNU's library reads this once, when torch loads it: call this before. By default a thread waits in a busy loop of
    300,000 turns, some milliseconds, and so keeps another from the core that it waits for.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def leave(code: int) -> NoReturn:
    """Exit like Python, but skip freeing objects one by one, which takes 0.2 s after a short run.

    If another thread or a child process is still running, Python waits for it as usual.
    """
    if threading.active_count() > 1 or multiprocessing.active_children():
        raise SystemExit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, broken or missing stream
            stream.flush()
    os._exit(code)


def check_not_starting() -> None:
    """End a worker process that runs the user's script again while it starts.

    Processes that are not forked import the script. Where that calls this package outside of `if __name__ ==
    "__main__":`, the worker would start over, and write another run folder.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise SystemExit(STARTS_AGAIN)


def start_no_threads() -> None:
    """Keep operations in the calling thread from starting OpenMP threads.

    Otherwise each decoding thread has its own team, whose members busy-wait for work.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).omp_set_num_threads(1)
