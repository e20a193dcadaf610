"""Locks on files, and on folders that one process at a time may write to; a lock ends with its process in any case.

All use of flock is here: it exists on Linux and macOS. Elsewhere nothing is locked, and two processes that write to the
same run, table or cache may mix their results.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from visionadapt.errors import RunError

LOCK = ".lock"
HAS_LOCKS = find_spec("fcntl") is not None
"""Whether this system has the locks; only there can an open file be renamed, too."""
_MOST_TRIES = 100
_held: set[int] = set()


def lock(file: int | IO[Any], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until it is closed; return False if another process holds it and `wait` is not set.

    Raise OSError if the file system has no locks.
    """
    if not HAS_LOCKS:
        return True
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class FolderLocks:
    """Locks on folders, held until `release` or the end of the `with` block.

    The lock is taken on a file `.lock` in the folder (flock), which names the process. On a file system without such
    locks, nothing is locked.
    """

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}

    def __enter__(self) -> FolderLocks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def take(self, folder: Path) -> None:
        """Lock an existing folder; raise RunError, which names the process, where another one holds it."""
        if folder in self._files or not HAS_LOCKS:
            return
        for _ in range(_MOST_TRIES):
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                ours = lock(descriptor, wait=False)
            except OSError:
                os.close(descriptor)
                return
            if not ours:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise RunError(f"{folder} is in use by {holder}; wait until that has ended")
            if is_at(descriptor, folder / LOCK):
                self._keep(folder, descriptor)
                return
            os.close(descriptor)

    def moved(self, folder: Path, to: Path) -> None:
        """Take note that a locked folder was renamed, over one that may have been locked itself."""
        if folder in self._files:
            self._close(to)
            self._files[to] = self._files.pop(folder)

    def release(self) -> None:
        """Unlock all folders."""
        for folder in list(self._files):
            with suppress(OSError):
                if self._files[folder] in _held and is_at(self._files[folder], folder / LOCK):
                    (folder / LOCK).unlink()
            self._close(folder)

    def _keep(self, folder: Path, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        self._files[folder] = descriptor
        _held.add(descriptor)

    def _close(self, folder: Path) -> None:
        descriptor = self._files.pop(folder, -1)
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one now at a path; another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked process: let go of the locks, which would outlive the process that holds them."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
