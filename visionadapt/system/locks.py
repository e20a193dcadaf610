"""Locks on folders that one process at a time may write to. A lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from visionadapt.errors import RunError

LOCK = ".lock"
_MOST_TRIES = 100
_held: set[int] = set()


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
        if folder in self._files:
            return
        for _ in range(_MOST_TRIES):
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise RunError(f"{folder} is in use by {holder}; wait until that has ended") from error
            except OSError:
                os.close(descriptor)
                return
            if _is_at(descriptor, folder / LOCK):
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
                if self._files[folder] in _held and _is_at(self._files[folder], folder / LOCK):
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


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one now at a path."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _forget() -> None:
    """In a forked process: let go of the locks, which would outlive the process that holds them."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
