"""What a process does with the memory that a tensor has left: on a CPU, new pages cost more than the arithmetic."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the two settings in glibc's malloc.h."""
_LARGEST_BLOCK = 2**30
"""Bytes up to which a block comes from what the process holds; a larger one goes back to the system when it is freed."""
_NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let the next tensor have the memory that the last one left; return whether the C library can be told so.

    glibc gives every block above 32 MiB back to the system, which hands it out again page by page, each filled with
    zeros first. A forward of lite0 on 32 pictures, two threads: 87 pictures a second with that and 228 without, in
    eager float32. The process stays as large as it once was. Where the environment settles it (`MALLOC_…`,
    `GLIBC_TUNABLES`) nothing is changed.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, _NEVER))
    return False
